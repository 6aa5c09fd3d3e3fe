# Everything comes from Debian packages, found by pkg-config. deploy/packages lists them.
find_package(PkgConfig REQUIRED)

pkg_check_modules(EVENT REQUIRED IMPORTED_TARGET libevent_core libevent_extra)
pkg_check_modules(EVENT_OPENSSL REQUIRED IMPORTED_TARGET libevent_openssl)
pkg_check_modules(WEBSOCKETS REQUIRED IMPORTED_TARGET libwebsockets>=4.1.6)
pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(INIH REQUIRED IMPORTED_TARGET inih)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl)

# Debian 12 calls it msgpack, Debian 13 msgpack-c.
pkg_search_module(MSGPACK REQUIRED IMPORTED_TARGET msgpack-c msgpack)
# Debian 13's msgpack-c.pc names an include directory that is relative to nothing; its headers are where every compiler
# looks anyway.
get_target_property(msgpack_includes PkgConfig::MSGPACK INTERFACE_INCLUDE_DIRECTORIES)
if(msgpack_includes)
  list(FILTER msgpack_includes INCLUDE REGEX "^/")
  set_target_properties(PkgConfig::MSGPACK PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${msgpack_includes}")
endif()
