# dynvit_library(NAME [TORCH KIND] [LINK targets...] [LINK_PRIVATE targets...])
#
# The static library dynvit_NAME of src/NAME/*.cpp and include/dynvit/NAME/*.hpp. TORCH: its sources see LibTorch, through
# the precompiled header of that kind (see dynvit_precompile).
function(dynvit_library name)
  cmake_parse_arguments(ARG "" "TORCH" "LINK;LINK_PRIVATE" ${ARGN})
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
    dynvit_precompile(dynvit_${name} ${ARG_TORCH})
  endif()
  set_property(GLOBAL APPEND PROPERTY DYNVIT_LIBRARIES dynvit_${name})
endfunction()

# dynvit_precompile(TARGET KIND)
#
# LibTorch's headers cost 14 to 20 seconds a file; precompiled once they cost 1 (tensors) or 2 (modules). A header that is
# needed in few places is dearer here than there: each file reads all of it. Source files still include what they use.
#     tensors   ATen
#     modules   torch::nn::Module too
#     tests     GoogleTest too, compiled as the tests are
#     program   CLI11 and JSON too, compiled as the program is
function(dynvit_precompile target kind)
  set(tensors <ATen/ATen.h>)
  set(modules ${tensors} <torch/nn/module.h>)
  set(tests ${modules} <gtest/gtest.h>)
  set(program ${modules} <CLI/CLI.hpp> <nlohmann/json.hpp>)
  set(pch dynvit_pch_${kind})
  if(NOT TARGET ${pch})
    file(WRITE ${PROJECT_BINARY_DIR}/${pch}.cpp "")
    add_library(${pch} OBJECT ${PROJECT_BINARY_DIR}/${pch}.cpp)
    target_compile_features(${pch} PUBLIC cxx_std_20)
    target_compile_options(${pch} PRIVATE -Wall -Wextra)
    target_link_libraries(${pch} PRIVATE LibTorch::cpu)
    if(kind STREQUAL "tests" OR kind STREQUAL "program")
      target_compile_options(${pch} PRIVATE ${DYNVIT_QUICK_OPTIONS})
    endif()
    if(kind STREQUAL "tests")
      target_link_libraries(${pch} PRIVATE GTest::gtest)
    endif()
    target_precompile_headers(${pch} PRIVATE ${${kind}})
  endif()
  target_precompile_headers(${target} REUSE_FROM ${pch})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)  # a precompiled header serves code that is compiled with the same options only
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()

# For code whose speed does not matter: it builds faster.
set(DYNVIT_QUICK_OPTIONS $<$<CONFIG:Release>:-O1>)
