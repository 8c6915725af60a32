# Sourced by what checks ledgers with code that others wrote: builds tests/foreign/*.go against
# Debian's golang-golang-x-mod-dev, off-line, in GOPATH mode.

foreign_root=$(cd "$(dirname "$0")" && while [ ! -f CMakePresets.json ] && [ "$PWD" != / ]; do cd ..; done && pwd)

# Exits 77 with a message where Go or the library is missing.
need_go() {
    if ! command -v go >/dev/null || [ ! -d /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog ]; then
        echo "skipped: golang-go or golang-golang-x-mod-dev is missing (tests/run installs them)"
        exit 77
    fi
}

# build_go NAME OUT
build_go() {
    GO111MODULE=off GOFLAGS='' GOPATH=/usr/share/gocode GOCACHE="$(dirname "$2")/gocache" \
        go build -o "$2" "$foreign_root/tests/foreign/$1.go"
}
