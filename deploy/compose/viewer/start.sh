#!/bin/sh
# Tells nginx which name server the container has, then becomes it.
set -eu
servers=$(sed -n 's/^nameserver \([0-9.]*\)$/\1/p' /etc/resolv.conf | tr '\n' ' ')
echo "resolver ${servers:?no name server} valid=5s ipv6=off;" >/tmp/resolver.conf
exec nginx -g 'daemon off;'
