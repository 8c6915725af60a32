#!/bin/sh
# The style test: what the arithmetic contract forbids in sources and build flags, who may include
# whom, and one door to each library. Prints every finding and fails if there is one.
# usage: tests/test_style.sh BUILD_DIR
set -u
build=$1
cd "$(dirname "$0")/.." || exit 1
found=0

sources=$(git ls-files -co --exclude-standard -- '*.c' '*.h' 2>/dev/null)
[ -n "$sources" ] || sources=$(find include kernels proto node coordinator tests -name '*.[ch]')

# refuse PATTERN REASON FILE…: no file may match the extended regular expression.
refuse() {
    pattern=$1
    reason=$2
    shift 2
    if hits=$(grep -nE -- "$pattern" "$@" /dev/null); then
        printf '%s:\n%s\n' "$reason" "$hits"
        found=1
    fi
}
# The same, with comments taken out first.
refuse_code() {
    pattern=$1
    reason=$2
    shift 2
    for file in "$@"; do
        if hits=$(gcc -fpreprocessed -dD -E -P -w -x c "$file" | grep -E -- "$pattern"); then
            printf '%s: %s:\n%s\n' "$file" "$reason" "$hits"
            found=1
        fi
    done
}
under() {
    printf '%s\n' "$sources" | grep -E "^($1)/"
}
except() {
    printf '%s\n' "$sources" | grep -vE "^($1)\$"
}

# E8: sums have one order.
refuse '#[[:space:]]*pragma[[:space:]]+omp.*reduction' "OpenMP reductions have no fixed order" $sources
refuse '#[[:space:]]*pragma[[:space:]]+omp[[:space:]]+simd' "omp simd may reassociate" $sources
refuse 'fast-math|Ofast|mrecip|funsafe-math|fassociative|freciprocal|ffinite-math|FP_CONTRACT[[:space:]]+ON|float_control' \
    "flags and pragmas that change arithmetic" $(printf '%s\n' "$sources" | grep -v '^tests/')
refuse '(^|[^-[:alnum:]])-(ffast-math|Ofast|mrecip|funsafe-math-optimizations|fassociative-math|ffp-contract=(fast|on))' \
    "flags that change arithmetic" $(git ls-files -co --exclude-standard -- '*CMakeLists.txt' '*.cmake' CMakePresets.json 2>/dev/null || find . -name CMakeLists.txt)
refuse_code '[^_.>[:alnum:]](expf?|logf?|tanhf?|erff?|sinf?|cosf?|powf?|exp2f?|log2f?|log1pf?|expm1f?)\(' \
    "libm functions differ between machines (E5)" $(under kernels)
if ! grep -q -- '-ffp-contract=off' CMakeLists.txt; then
    echo "CMakeLists.txt: -ffp-contract=off is missing"
    found=1
fi
if [ -f "$build/compile_commands.json" ]; then
    # Every file of ours is compiled with contraction off, and nothing later turns it on again.
    loose=$(grep '"command"' "$build/compile_commands.json" |
        grep -vE 'pb-c\.c' | grep -vE -- '-ffp-contract=off' || true)
    if [ -n "$loose" ]; then
        printf 'compiled without -ffp-contract=off:\n%s\n' "$loose"
        found=1
    fi
fi

# Who may include whom.
refuse '#include "(\.\./)*(proto|node|coordinator)/' "kernels/ knows nothing above it" $(under kernels)
refuse '#include "(\.\./)*(node|coordinator)/' "proto/ knows nothing above it" $(under proto)
refuse '#include "(\.\./)*coordinator/' "node/ never includes coordinator/" $(under node)
refuse '#include "(\.\./)*node/' "coordinator/ never includes node/" $(under coordinator)

# One door to each library.
refuse '<cblas\.h>' "OpenBLAS: kernels/blas_matmul.c alone" $(except 'kernels/blas_matmul\.c')
refuse '#[[:space:]]*pragma[[:space:]]+omp|<omp\.h>' "OpenMP: kernels/fork_join.c, and threads of OpenBLAS" \
    $(except 'kernels/(fork_join|blas_matmul)\.c' | grep -v '^tests/')
refuse '<mpi\.h>' "MPI: node/site.c alone" $(except 'node/site\.c')
refuse '<microhttpd\.h>' "libmicrohttpd: coordinator/web.c alone" $(except 'coordinator/web\.c')
refuse '<curl/' "libcurl: proto/rt/fetch.c and proto/rt/exchange.c alone" $(except 'proto/rt/(fetch|exchange)\.c')
refuse '<sqlite3\.h>' "SQLite: node/audit_sqlite.c alone" $(except 'node/audit_sqlite\.c' | grep -v '^tests/')
refuse '<openssl/' "OpenSSL: proto/crypto.c and proto/rt/tls.c alone" $(except 'proto/crypto\.c|proto/rt/(tls|link)\.c' | grep -v '^tests/')
refuse '<protobuf-c|cotrain\.pb-c\.h' "protobuf-c: the files of messages alone" \
    $(except 'proto/(assignments|commit|entry|envelope|manifest|merge_list|message|volunteer|wire)\.[ch]' | grep -v '^tests/')
refuse '<cyaml|<yaml\.h>' "libyaml: the manifest alone" $(except 'proto/manifest[a-z_]*\.c')

# Banned calls.
refuse '[^_[:alnum:]](rand|srand|random|drand48|strcpy|strcat|sprintf|gets|strtok|atoi|atof|alloca)\(' \
    "banned calls" $(printf '%s\n' "$sources" | grep -v '^tests/')
refuse '[^_[:alnum:]](exit|_exit)\(' "exit belongs to main and commands" \
    $(under 'kernels|proto' | grep -v 'kernels/err\.c')
refuse '\b(TODO|FIXME|XXX|HACK)\b' "unfinished work in comments" $(except 'tests/test_style\.sh')

# A section that is cited is there: "numerics.md E4, E10", "protocol.md sections 2 to 5".
texts=$(git ls-files -co --exclude-standard 2>/dev/null | grep -E '\.(c|h|md|proto|sh|go|txt)$')
[ -n "$texts" ] || texts=$sources
lost=$(awk '
    function note(section) { cites[file " cites " name " " section] = name " " section }
    function finish(    cite, count, i, words, last, range) {
        gsub(/[ \t*]+/, " ", text) # a comment is one line
        if (file == "proto/protocol.md") {
            gsub(/sections? [0-9]/, "protocol.md &", text)
        }
        while (match(text, /[a-z_]+\.md`?,? (sections? [0-9]+((, | and | to )[0-9]+)*|(E[0-9]+|SL1)((, | and )(E[0-9]+|SL1))*)/)) {
            cite = substr(text, RSTART, RLENGTH)
            text = substr(text, RSTART + RLENGTH)
            count = split(cite, words, /[ ,`]+/)
            name = words[1]
            range = 0
            for (i = 2; i <= count; i++) {
                if (words[i] == "to") {
                    range = 1
                } else if (words[i] ~ /[0-9]/) {
                    while (range && ++last < words[i]) {
                        note(last)
                    }
                    note(words[i])
                    last = words[i] + 0
                    range = 0
                }
            }
        }
        text = ""
    }
    FNR == 1 { finish(); file = FILENAME }
    FILENAME ~ /^(kernels\/numerics|proto\/protocol)\.md$/ && /^## / {
        sub(/\.$/, "", $2)
        there[substr(FILENAME, index(FILENAME, "/") + 1) " " $2] = 1
    }
    { text = text " " $0 }
    END {
        finish()
        for (cite in cites) {
            if (!(cites[cite] in there)) {
                print cite ", which is not there"
            }
        }
    }' $texts)
if [ -n "$lost" ]; then
    printf '%s\n' "$lost"
    found=1
fi

# Size and shape.
for file in $sources; do
    lines=$(wc -l <"$file")
    most=600
    # A connection and its listener share one life cycle, told in one place.
    [ "$file" != proto/rt/link.c ] || most=620
    # A test is a list; its length costs a reader nothing.
    case "$file" in tests/*) most=1200 ;; esac
    if [ "$lines" -gt $most ]; then
        echo "$file: $lines lines; $most is the most"
        found=1
    fi
done
# A basename is unique in the tree; command.h style headers lead to one file.
twins=$(printf '%s\n' "$sources" | grep -v '/main\.c$' | sed 's|.*/||' | sort | uniq -d)
if [ -n "$twins" ]; then
    printf 'names that lead to two files: %s\n' "$twins"
    found=1
fi

[ "$found" = 0 ] && echo "style holds"
exit "$found"
