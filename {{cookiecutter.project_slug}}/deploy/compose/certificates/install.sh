#!/bin/sh
# certbot runs this with a new certificate: both files go to where nginx reads them.
set -eu
umask 077
for name in privkey.pem fullchain.pem; do
    if ! cmp -s "$RENEWED_LINEAGE/$name" "/etc/nginx/tls/$name"; then
        cp "$RENEWED_LINEAGE/$name" "/etc/nginx/tls/$name.new"
        mv "/etc/nginx/tls/$name.new" "/etc/nginx/tls/$name"
    fi
done
