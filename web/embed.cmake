# Writes the C source that holds the page's files, each served under its name: cmake -DFILES=/a;/b -DOUTPUT=… -P embed.cmake

set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")

set(arrays "")
set(rows "")
set(index 0)
foreach(file IN LISTS FILES)
  file(READ ${file} hex HEX)
  file(SHA256 ${file} hash)
  string(SUBSTRING ${hash} 0 32 hash)
  get_filename_component(name ${file} NAME)
  get_filename_component(extension ${file} LAST_EXT)
  string(SUBSTRING ${extension} 1 -1 extension)
  if(hex STREQUAL "" OR NOT DEFINED type_${extension})
    message(FATAL_ERROR "${file}: empty, or of a kind without a content type")
  endif()
  string(REGEX REPLACE "(..)" "0x\\1," bytes ${hex})
  string(REPEAT "....." 20 line)
  string(REGEX REPLACE "(${line})" "\\1\n" bytes ${bytes})
  string(APPEND arrays "static const unsigned char file_${index}[] = {\n${bytes}\n};\n\n")
  string(APPEND rows "    {\"/${name}\", \"${type_${extension}}\", \"\\\"${hash}\\\"\", file_${index},\n"
                     "     sizeof file_${index}},\n")
  math(EXPR index "${index} + 1")
endforeach()

file(WRITE ${OUTPUT} "#include \"web/assets_table.h\"\n\n${arrays}"
                     "const struct web_asset web_assets[] = {\n${rows}};\n\n"
                     "const size_t web_asset_count = sizeof web_assets / sizeof web_assets[0];\n")
