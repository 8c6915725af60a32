# Sourced first by the benchmarks that are scripts: --help prints the comment at their head.
case "${1:-}" in
-h | --help)
    sed -n '2,$ { /^#/! q; s/^# \{0,1\}//p }' "$0"
    exit 0
    ;;
esac
