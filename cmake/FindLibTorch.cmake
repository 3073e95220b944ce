# Finds LibTorch in a PyPI wheel, a zip, or wherever CMAKE_PREFIX_PATH points, without LibTorch's own CMake files: those of
# a CUDA build stop where no CUDA toolkit is installed, also for programs that need the CPU only.
#
# Looks in: LIBTORCH_ROOT (variable or environment), CMAKE_PREFIX_PATH, the installed Python's torch.
# Makes: LibTorch::cpu and, where the GPU library is there, LibTorch::cuda.
# Sets: LibTorch_FOUND, LibTorch_VERSION, LibTorch_HAS_CUDA, LibTorch_LIBRARY_DIRS (for run paths).

set(_libtorch_hints ${LIBTORCH_ROOT} $ENV{LIBTORCH_ROOT})
if(NOT _libtorch_hints AND NOT CMAKE_PREFIX_PATH)
  find_program(_libtorch_python NAMES python3)
  if(_libtorch_python)
    execute_process(
      COMMAND ${_libtorch_python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE _libtorch_from_python OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    list(APPEND _libtorch_hints ${_libtorch_from_python})
  endif()
endif()

find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS ${_libtorch_hints} PATH_SUFFIXES include torch/include)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${_libtorch_hints} PATH_SUFFIXES lib torch/lib)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${_libtorch_hints} PATH_SUFFIXES lib torch/lib)
if(LibTorch_CPU_LIBRARY)
  get_filename_component(_libtorch_lib ${LibTorch_CPU_LIBRARY} DIRECTORY)
  find_library(LibTorch_CUDA_LIBRARY torch_cuda HINTS ${_libtorch_lib} NO_DEFAULT_PATH)
  find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${_libtorch_lib} NO_DEFAULT_PATH)
endif()

if(LibTorch_INCLUDE_DIR AND EXISTS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
  set(_libtorch_version_header ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
else()
  set(_libtorch_version_header ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h)
endif()
if(EXISTS ${_libtorch_version_header})
  file(STRINGS ${_libtorch_version_header} _libtorch_version REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE "[^0-9;]" "" _libtorch_version "${_libtorch_version}")
  string(REPLACE ";" "." LibTorch_VERSION "${_libtorch_version}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "Set LIBTORCH_ROOT to LibTorch's folder (a wheel's torch/ or an unpacked zip), or run scripts/test.sh, which installs it.")

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  # A wheel keeps the CUDA libraries that libtorch_cpu.so itself needs in folders beside torch/.
  file(GLOB _libtorch_nvidia ${_libtorch_lib}/../../nvidia/*/lib)
  set(LibTorch_LIBRARY_DIRS ${_libtorch_lib} ${_libtorch_nvidia})

  add_library(LibTorch::c10 UNKNOWN IMPORTED)
  set_target_properties(LibTorch::c10 PROPERTIES IMPORTED_LOCATION ${LibTorch_C10_LIBRARY})
  add_library(LibTorch::cpu UNKNOWN IMPORTED)
  set_target_properties(LibTorch::cpu PROPERTIES IMPORTED_LOCATION ${LibTorch_CPU_LIBRARY})
  set_property(TARGET LibTorch::cpu PROPERTY INTERFACE_SYSTEM_INCLUDE_DIRECTORIES
    ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  set_property(TARGET LibTorch::cpu PROPERTY INTERFACE_INCLUDE_DIRECTORIES
    ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  # at::parallel_for is a template in a header: compiled without OpenMP, its loops run on one thread.
  # By flag, as CMake's target would put the compiler's own runtime before the one that LibTorch brings.
  if(NOT DYNVIT_FUZZ)  # what reads files has no such loops, and clang's OpenMP would be one package more
    find_package(OpenMP REQUIRED COMPONENTS CXX)
    target_compile_options(LibTorch::cpu INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${OpenMP_CXX_FLAGS}>)
    target_link_options(LibTorch::cpu INTERFACE ${OpenMP_CXX_FLAGS})
  endif()
  target_link_libraries(LibTorch::cpu INTERFACE LibTorch::c10)
  foreach(_dir IN LISTS LibTorch_LIBRARY_DIRS)
    target_link_options(LibTorch::cpu INTERFACE "LINKER:-rpath-link,${_dir}")
  endforeach()

  # A wheel installed without its dependencies has libtorch_cuda.so, but not the libraries that it needs.
  set(LibTorch_HAS_CUDA FALSE)
  file(GLOB _libtorch_cudnn ${_libtorch_lib}/../../nvidia/cudnn/lib/libcudnn.so*)
  if(LibTorch_CUDA_LIBRARY AND LibTorch_C10_CUDA_LIBRARY AND (_libtorch_cudnn OR NOT _libtorch_nvidia))
    set(LibTorch_HAS_CUDA TRUE)
    add_library(LibTorch::c10_cuda UNKNOWN IMPORTED)
    set_target_properties(LibTorch::c10_cuda PROPERTIES IMPORTED_LOCATION ${LibTorch_C10_CUDA_LIBRARY})
    # Nothing calls into libtorch_cuda.so by name: it registers itself when loaded, so the linker must not drop it.
    add_library(LibTorch::cuda INTERFACE IMPORTED)
    target_link_libraries(LibTorch::cuda INTERFACE
      "-Wl,--no-as-needed" ${LibTorch_CUDA_LIBRARY} LibTorch::c10_cuda LibTorch::cpu "-Wl,--as-needed")
  endif()
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_CUDA_LIBRARY
  LibTorch_C10_CUDA_LIBRARY)
