#!/usr/bin/env bash
# Looks over the C++ files that changed with clang-tidy: .clang-tidy lists what it looks for.
#     scripts/tidy.sh [BASE]             the files that differ from where this branch left BASE (a commit or a branch),
#                                        committed or not; for a header, one source that includes it
#     scripts/tidy.sh --all              all files; two hours of a processor core
#     scripts/tidy.sh --limit SECONDS    begins no further file after that time, and names those that it left out
# Without BASE: origin/main, where there are changes against it; otherwise the last commit that touched C++.
. "$(dirname "$0")/common.sh"

all=0 base='' limit=0
while [ $# -gt 0 ]; do
    case "$1" in
        --all) all=1 ;;
        --limit) limit=${2:-}; [[ $limit =~ ^[0-9]+$ ]] || fail "--limit needs a number of seconds"; shift ;;
        -*) fail "unknown argument $1; usage: scripts/tidy.sh [--limit SECONDS] [--all | BASE]" ;;
        *) base=$1; git rev-parse -q --verify "$base^{commit}" > /dev/null || fail "no commit or branch $base" ;;
    esac
    shift
done
folders=(src tools tests benchmarks examples)
commit=$(git rev-parse -q --verify HEAD) || commit=none

changed_since() {
    git diff --name-only --diff-filter=d "$1"
    git ls-files --others --exclude-standard
}

touches_cpp() { changed_since "$1" | grep -qE '\.[ch]pp$'; }

# Says which files, and writes their names to standard output.
chosen() {
    local main
    if [ -n "$base" ]; then
        base=$(git merge-base "$base" HEAD || git rev-parse "$base")
    elif [ "$all" = 0 ]; then
        # In CI the clone may hold one commit and no branch main.
        main=$(git merge-base origin/main HEAD 2> /dev/null) && touches_cpp "$main" && base=$main
        [ -n "$base" ] || { [ "$commit" != none ] && touches_cpp HEAD && base=HEAD; }
        [ -n "$base" ] || base=$(git log -1 --format=%H -- '*.cpp' '*.hpp' 2> /dev/null)^
    fi
    if [ "$all" = 1 ]; then
        say "All C++ files" >&2
        find "${folders[@]}" -name '*.cpp'
    elif git rev-parse -q --verify "$base^{commit}" > /dev/null; then
        say "C++ files that changed since $(git log -1 --format='%h (%s)' "$base")" >&2
        changed_since "$base"
    else
        say "No earlier commit is here, so what changed is unknown: all C++ files" >&2
        find "${folders[@]}" -name '*.cpp'
    fi
}

# A source that includes the header $1: the one of its name, its test, or another.
source_of() {
    local name=${1#include/dynvit/} source
    name=${name#src/}
    for source in "${1%.hpp}.cpp" "src/${name%.hpp}.cpp" "tests/${name%.hpp}_test.cpp" \
        $(grep -rlE --include='*.cpp' "#include \"([^\"]*/)?$(basename "$1")\"" "${folders[@]}" | sort); do
        in_database "$source" && { echo "$source"; return; }
    done
    echo "$1"
}

in_database() { grep -qF "\"file\": \"$PWD/$1\"" build/tidy/compile_commands.json; }

install_packages
install_libtorch cpu
install_clang_tidy
configure cpu > build-tidy.log 2>&1 || { tail -n 20 build-tidy.log >&2; fail "cmake --preset cpu failed"; }
rm -f build-tidy.log
# Sources include what they use, so they are read without the precompiled headers, which are GCC's, as its omp.h is.
mkdir -p build/tidy
sed -E 's# -Winvalid-pch -include [^ ]*/cmake_pch\.hxx##; s# -fopenmp##' "build/cpu/compile_commands.json" > build/tidy/compile_commands.json

files=() left_out=()
while read -r file; do
    [[ $file = *.hpp ]] && file=$(source_of "$file")
    if in_database "$file"; then files+=("$file"); else left_out+=("$file"); fi
done < <(chosen | grep -E '\.[ch]pp$')
[ ${#files[@]} -eq 0 ] && { echo "0 files, 0 findings"; exit; }
[ ${#left_out[@]} -eq 0 ] || echo "not built by preset cpu, so not looked at: ${left_out[*]}"

look() {
    [ "$limit" -gt 0 ] && [ "$(date +%s)" -ge "$deadline" ] && { echo "$1" >> "$skipped"; return; }
    local text found status=0
    text=$("$clang_tidy" --quiet -p build/tidy "$1" 2>&1) || status=$?
    # One line a finding, its name in brackets.
    found=$(grep -E '^/[^ ]+:[0-9]+:[0-9]+: (warning|error): ' <<< "$text") || {
        [ "$status" -eq 0 ] || echo "$1: error: clang-tidy says no more than: $(tail -n 1 <<< "$text")"
        return 0
    }
    sed -e "s#^$PWD/##" -e 's/,-warnings-as-errors]$/]/' <<< "$found"
}
export -f look
export clang_tidy limit deadline=$(($(date +%s) + limit)) skipped=build/tidy/skipped
: > "$skipped"
# The order is another for each commit, so that a limit leaves out other files each time. Several sources may show a header's finding.
printf '%s\n' "${files[@]}" | sort -u | sort -R --random-source=<(yes "$commit") |
    nice xargs -r -P "$(nproc)" -I {} bash -c 'look "$1"' _ {} | awk '!seen[$0]++ { print; fflush() }' | tee build/tidy/findings
findings=$(wc -l < build/tidy/findings)
[ "$findings" -eq 0 ] || printf '\nThe whole text of a finding: %s -p build/tidy FILE\n' "$clang_tidy"
[ -s "$skipped" ] && echo "not looked at, for $limit seconds were over: $(sort "$skipped" | tr '\n' ' ')"
looked=$(printf '%s\n' "${files[@]}" | sort -u | grep -cvxF -f "$skipped") || true
echo "$looked files, $findings findings"
[ "$findings" -eq 0 ]
