# One target a folder. A folder's headers are included as "folder/name.h", and are found only by targets that link
# it: each include directory holds nothing but a link to its one folder, so an include that points up does not compile.

function(switchboard_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Werror -Wstrict-prototypes
                                           -Wmissing-prototypes -fno-common)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE SWITCHBOARD_VERSION="${PROJECT_VERSION}")
  if(SWITCHBOARD_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=undefined
                                             -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
  if(SWITCHBOARD_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# switchboard_library(NAME FOLDER SOURCE...): FOLDER is relative to the project's root.
function(switchboard_library name folder)
  add_library(${name} STATIC ${ARGN})
  switchboard_compile_options(${name})
  set(include ${CMAKE_BINARY_DIR}/include/${name})
  get_filename_component(parent ${include}/${folder} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${folder} ${include}/${folder} SYMBOLIC)
  target_include_directories(${name} PUBLIC ${include})
endfunction()
