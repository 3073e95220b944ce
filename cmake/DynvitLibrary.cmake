# dynvit_library(NAME [TORCH] [LINK targets...] [LINK_PRIVATE targets...])
#
# The static library dynvit_NAME of src/NAME/*.cpp and include/dynvit/NAME/*.hpp. TORCH: its sources see LibTorch, through
# one precompiled header that all such libraries share.
function(dynvit_library name)
  cmake_parse_arguments(ARG "TORCH" "" "LINK;LINK_PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  add_library(dynvit_${name} STATIC ${sources})
  add_library(dynvit::${name} ALIAS dynvit_${name})
  target_include_directories(dynvit_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(dynvit_${name} PUBLIC cxx_std_20)
  target_compile_options(dynvit_${name} PRIVATE -Wall -Wextra)
  target_link_libraries(dynvit_${name} PUBLIC ${ARG_LINK})
  foreach(library IN LISTS ARG_LINK_PRIVATE)
    target_link_libraries(dynvit_${name} PRIVATE ${library})
  endforeach()
  if(ARG_TORCH)
    target_link_libraries(dynvit_${name} PUBLIC LibTorch::cpu)
    dynvit_precompile(dynvit_${name})
  endif()
  set_property(GLOBAL APPEND PROPERTY DYNVIT_LIBRARIES dynvit_${name})
endfunction()

# LibTorch's headers cost 20 seconds a file; precompiled once they cost two. Source files still include what they use.
function(dynvit_precompile target)
  if(NOT TARGET dynvit_pch)
    file(WRITE ${PROJECT_BINARY_DIR}/pch.cpp "")
    add_library(dynvit_pch OBJECT ${PROJECT_BINARY_DIR}/pch.cpp)
    target_compile_features(dynvit_pch PUBLIC cxx_std_20)
    target_compile_options(dynvit_pch PRIVATE -Wall -Wextra)
    target_link_libraries(dynvit_pch PRIVATE LibTorch::cpu)
    target_precompile_headers(dynvit_pch PRIVATE <torch/types.h> <torch/nn/module.h> <torch/nn/modules/conv.h>
      <torch/nn/modules/linear.h> <torch/nn/modules/normalization.h> <torch/csrc/autograd/custom_function.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM dynvit_pch)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)  # a precompiled header serves code that is compiled with the same options only
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()
