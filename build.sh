#!/bin/sh
# Builds bin/torchgo and sets up libtorch with it; arguments are those of `torchgo setup`.
set -e
cd "$(dirname "$0")"
go build -o bin/torchgo ./cmd/torchgo
exec bin/torchgo setup "$@"
