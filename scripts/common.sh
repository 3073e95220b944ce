# What the scripts share: says what it does, installs what is missing, builds. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch_version=2.11.0
clang_tidy_version=23.1.4
cache="${DYNVIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dynvit}"
packages=(g++ cmake ninja-build ccache python3-pip libcli11-dev libyaml-cpp-dev libspdlog-dev libgtest-dev
          libjpeg62-turbo-dev libpng-dev libwebp-dev libgif-dev libtiff-dev zlib1g-dev libzstd-dev nlohmann-json3-dev
          libonnx-dev libprotobuf-dev libgloo-dev)
# Precompiled headers need these two to be cached.
export CCACHE_SLOPPINESS=pch_defines,time_macros

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

install_packages() {
    command -v dpkg-query > /dev/null || { say "No dpkg here: CMake will look for the libraries"; return; }
    local missing=() package
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] && continue
        # Another release may have the tool under another package: a newer cmake, a pip of one's own.
        case "$package" in
            g++ | cmake | ccache) command -v "$package" > /dev/null && continue ;;
            ninja-build) command -v ninja > /dev/null && continue ;;
            python3-pip) python3 -m pip --version > /dev/null 2>&1 && continue ;;
            libjpeg62-turbo-dev) [ -e /usr/include/jpeglib.h ] && continue
                apt-cache show "$package" > /dev/null 2>&1 || package=libjpeg-dev ;;
        esac
        missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2> /dev/null || fail "these packages are missing, and installing them needs root: apt-get install ${missing[*]}"
        root=(sudo)
    fi
    say "Installing from Debian: ${missing[*]}"
    { "${root[@]}" apt-get update -qq && "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null; } ||
        fail "apt-get could not install: ${missing[*]}"
}

# Fills the folder $1 of the cache, unless it is there. $2: what for; $3: what pip may not find; further: pip's arguments.
install_wheels() {
    local folder=$1 what=$2 wheel=$3
    shift 3
    [ -d "$folder" ] && return
    say "Installing $what into $folder"
    rm -rf "$folder.partial"
    mkdir -p "$cache" || fail "$cache cannot be made; set DYNVIT_CACHE to a folder for $what"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile \
        --target "$folder.partial" "$@" || fail "pip could not install $wheel; is PyPI within reach?"
    mv "$folder.partial" "$folder"
}

# Sets LIBTORCH_ROOT. $1: cpu (the lean set) or cuda (everything a GPU needs, 4.7 GB).
install_libtorch() {
    if [ -n "${LIBTORCH_ROOT:-}" ]; then
        [ -e "$LIBTORCH_ROOT/include/ATen/ATen.h" ] || fail "LIBTORCH_ROOT=$LIBTORCH_ROOT holds no LibTorch (include/ATen/ATen.h)"
        return
    fi
    local folder="$cache/libtorch-$torch_version-$1"
    local wanted=("torch==$torch_version")
    [ "$1" = cuda ] && wanted+=("nvidia-nvjpeg>=13.0,<13.1")  # the GPU's JPEG decoder, for data.gpu_decode
    [ "$1" = cpu ] && wanted=(--no-deps "${wanted[@]}" "nvidia-cuda-runtime>=13.0,<14" "nvidia-cuda-cupti>=13.0,<14")
    install_wheels "$folder" "LibTorch $torch_version ($1)" "torch $torch_version" "${wanted[@]}"
    export LIBTORCH_ROOT="$folder/torch"
}

# Sets clang_tidy. The release is a fixed one, for each finds other things; Debian's 14 would take four times as long, for it
# looks into the headers of LibTorch too.
install_clang_tidy() {
    local folder="$cache/clang-tidy-$clang_tidy_version"
    install_wheels "$folder" "clang-tidy $clang_tidy_version" "clang-tidy $clang_tidy_version" \
        --no-deps "clang-tidy==$clang_tidy_version"
    clang_tidy="$folder/clang_tidy/data/bin/clang-tidy"
}

# $1: preset.
configure() {
    local launcher=()
    command -v ccache > /dev/null && launcher=(-DCMAKE_{CXX,CUDA}_COMPILER_LAUNCHER=ccache)
    cmake --preset "$1" "${launcher[@]}" -DLIBTORCH_ROOT="$LIBTORCH_ROOT"
}

# $1: preset; further: targets.
build() {
    local preset=$1 target=()
    shift
    [ $# -gt 0 ] && target=(--target "$@")
    say "Building preset $preset with $LIBTORCH_ROOT"
    configure "$preset" > "build-$preset.log" 2>&1 &&
        cmake --build --preset "$preset" "${target[@]}" >> "build-$preset.log" 2>&1 || {
        grep -m 20 -E 'error|Error' "build-$preset.log" >&2 || tail -n 20 "build-$preset.log" >&2
        fail "the build failed; all of it is in build-$preset.log"
    }
    rm -f "build-$preset.log"
}
