# cmake --install: the program, the headers, the libraries, and what find_package(dynvit) needs.
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY DYNVIT_LIBRARIES)
set_target_properties(dynvit_all PROPERTIES EXPORT_NAME dynvit)
install(TARGETS ${libraries} dynvit_all EXPORT dynvit-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS dynvit_c LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS dynvit RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/dynvit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/dynvit/configs)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dynvit)
install(EXPORT dynvit-targets NAMESPACE dynvit:: DESTINATION ${package_dir})
configure_package_config_file(cmake/dynvit-config.cmake.in ${PROJECT_BINARY_DIR}/dynvit-config.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dynvit-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/FindLibTorch.cmake cmake/FindWebP.cmake cmake/FindZstd.cmake ${PROJECT_BINARY_DIR}/dynvit-config.cmake
  ${PROJECT_BINARY_DIR}/dynvit-config-version.cmake DESTINATION ${package_dir})
