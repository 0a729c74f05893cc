# Lets the standard CMakeLists.txt build against the ROS wheels of PyPI; a ROS distribution does not need it.
# Passed as CMAKE_PROJECT_dfd_msgs_INCLUDE, so that it runs right after project().

# The wheels export include directories of the machine that built them: drop those that do not exist here.
function(drop_missing_include_directories)
  get_directory_property(targets IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(existing)
    foreach(directory IN LISTS directories)
      if(NOT IS_ABSOLUTE "${directory}" OR EXISTS "${directory}")
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endforeach()
endfunction()

# The ament macros look for their resource index in AMENT_PREFIX_PATH.
find_package(ament_cmake REQUIRED)
get_filename_component(prefix "${ament_cmake_DIR}/../../.." ABSOLUTE)
set(ENV{AMENT_PREFIX_PATH} "${prefix}")

cmake_language(DEFER CALL drop_missing_include_directories)
