# Debian's own Python: the packages that the tests need are installed there, whatever else is first in PATH.
find_program(SWITCHBOARD_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)

# switchboard_python_tests(LABEL): each test_*.py of this folder is one test, LABEL/NAME. A line "# ctest: KEY VALUE..." in
# it sets CTest's properties, as in "# ctest: TIMEOUT 600 RUN_SERIAL TRUE"; a line "# ctest: unsanitized" leaves the file out
# of builds with sanitizers, where what it counts would mean nothing.
function(switchboard_python_tests label)
  if(NOT SWITCHBOARD_PYTHON)
    return()
  endif()
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/test_*.py)
  foreach(file IN LISTS files)
    file(STRINGS ${file} unsanitized REGEX "^# ctest: unsanitized$")
    if(unsanitized AND SWITCHBOARD_SANITIZE)
      continue()
    endif()
    get_filename_component(name ${file} NAME_WE)
    string(REPLACE test_ "" name ${name})
    add_test(NAME ${label}/${name} COMMAND ${SWITCHBOARD_PYTHON} -B -m pytest -q ${file})
    set_tests_properties(${label}/${name} PROPERTIES LABELS ${label} TIMEOUT 300)
    set_property(TEST ${label}/${name} PROPERTY ENVIRONMENT SWITCHBOARD_BIN=${CMAKE_BINARY_DIR}/switchboard
                                                            SWITCHBOARD_SANITIZE=${SWITCHBOARD_SANITIZE})
    # No test was selected: then none failed.
    set_property(TEST ${label}/${name} PROPERTY SKIP_RETURN_CODE 5)
    file(STRINGS ${file} wishes REGEX "^# ctest: [A-Z]")
    foreach(wish IN LISTS wishes)
      string(REPLACE "# ctest: " "" wish ${wish})
      separate_arguments(wish)
      set_tests_properties(${label}/${name} PROPERTIES ${wish})
    endforeach()
  endforeach()
endfunction()
