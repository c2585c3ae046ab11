#!/bin/sh
# Before nginx starts: where there is no certificate yet, one of our own, so that an ACME client finds a server that
# answers. Browsers warn of it.
set -eu
cd /etc/nginx/tls
if [ -e fullchain.pem ]; then exit 0; fi
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 90 -keyout privkey.pem -out new.pem \
    -subj "/CN=self-signed" \
    -addext "subjectAltName=DNS:{{ cookiecutter.domain_name }},DNS:localhost,IP:127.0.0.1" 2>/dev/null
mv new.pem fullchain.pem
