#!/bin/sh
# Tells systemd which directories the agent may write to, from the agent's own configuration, so that
# `storage` is set in one place: https://www.freedesktop.org/software/systemd/man/systemd.generator.html
config=/etc/mirrornet/mirror-agent.toml
[ -r "$config" ] || exit 0
exec @BINDIR@/mirror-agent unit-drop-in --config "$config" \
    --out "${1:?the directory for generated units}/mirrornet-mirror-agent.service.d"
