#!/usr/bin/env bash
# Sets up, builds and runs every test.
#     scripts/test.sh                         the tests
#     scripts/test.sh --sanitizers            the same under AddressSanitizer and UndefinedBehaviorSanitizer
#     scripts/test.sh [--sanitizers] io data  those of some folders of tests/ only
. "$(dirname "$0")/common.sh"

preset=cpu targets=() folders=()
for argument in "$@"; do
    case "$argument" in
        --sanitizers) preset=asan ;;
        *) [ -d "tests/$argument" ] && [ "$argument" != golden ] ||
            fail "unknown argument $argument; usage: scripts/test.sh [--sanitizers] [FOLDER OF tests/ ...]"
            targets+=("${argument}_tests") folders+=("$argument") ;;
    esac
done
selected=()
[ ${#folders[@]} -gt 0 ] && selected=(--tests-regex "^($(IFS='|'; echo "${folders[*]}"))\\.")

# What GoogleTest's programs say of their tests; CTest counts programs.
count() {
    awk -v kind="$1" '$0 ~ "^[[]  " kind " +[]] [0-9]+ tests?" { sub(/^[^]]*] /, ""); n += $1 } END { print n + 0 }' "$log"
}

install_packages
install_libtorch cpu
build "$preset" "${targets[@]}"
say "Running the tests ($preset)"
# LibTorch keeps what it allocates once until the end, which is no leak of ours.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
status=0
ctest --preset "$preset" "${selected[@]}" --output-on-failure --parallel "$(nproc)" | grep -vE '^ +Start ' || status=${PIPESTATUS[0]}
log=build/$preset/Testing/Temporary/LastTest.log
say "Skipped, and why"
grep -A 1 ': Skipped$' "$log" | grep -vE ': Skipped$|^--$' | sort | uniq -c || true
echo "$(count PASSED) passed, $(count FAILED) failed, $(count SKIPPED) skipped"
exit "$status"
