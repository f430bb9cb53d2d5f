# Everything that a person or a machine does with this repository. `make help` lists it.

PREFIX ?= /usr/local
DESTDIR ?=
# `dev` builds in a fraction of the time; what is installed should be `release`.
PROFILE ?= release
CARGO ?= cargo

profile_dir = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
target_dir = $(or $(CARGO_TARGET_DIR),target)
programs = coordinator mirrorctl publisher mirror-agent
bindir = $(DESTDIR)$(PREFIX)/bin
unitdir = $(DESTDIR)$(PREFIX)/lib/systemd/system
sysusersdir = $(DESTDIR)$(PREFIX)/lib/sysusers.d
tmpfilesdir = $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
generatordir = $(DESTDIR)$(PREFIX)/lib/systemd/system-generators
mandir = $(DESTDIR)$(PREFIX)/share/man/man1
exampledir = $(DESTDIR)$(PREFIX)/share/doc/mirrornet/examples

.PHONY: help demo test bench lint install build

help:
	@echo 'make demo     run a whole network on this machine in a throw-away directory'
	@echo 'make test     run all tests; the last line counts them'
	@echo 'make bench    run the benchmarks with the peers beside them (long)'
	@echo 'make lint     formatting, clippy, licences and bans'
	@echo 'make install  install programs, units, completions, man pages and examples'
	@echo '              (DESTDIR= PREFIX=/usr/local PROFILE=release)'

build:
	@tests/need.sh build
	$(CARGO) build --locked --workspace --bins

demo:
	@tests/need.sh build demo
	$(CARGO) build --locked --workspace --bins
	@$(target_dir)/debug/demo

test:
	@tests/need.sh build test
	$(CARGO) build --locked --workspace --bins
	@MIRRORNET_BIN_DIR="$(abspath $(target_dir))/debug" tests/run.sh

bench:
	@tests/need.sh build bench
	$(CARGO) build --locked --workspace --bins --release
	@MIRRORNET_BIN_DIR="$(abspath $(target_dir))/release" tests/bench/run.sh

lint:
	@tests/need.sh build lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	$(CARGO) deny --locked check bans licenses sources

install:
	@tests/need.sh build
	$(CARGO) build --locked --profile $(PROFILE) --bins $(addprefix --package ,coordinator publisher mirror-agent)
	install -d $(bindir) $(unitdir) $(generatordir) $(sysusersdir) $(tmpfilesdir) $(mandir) $(exampledir)
	install -m 0755 $(addprefix $(target_dir)/$(profile_dir)/,$(programs)) $(bindir)
	@for role in coordinator publisher mirror-agent; do \
	    sed 's|@BINDIR@|$(PREFIX)/bin|g' $$role/packaging/mirrornet-$$role.service \
	        > $(unitdir)/mirrornet-$$role.service && \
	    chmod 0644 $(unitdir)/mirrornet-$$role.service && \
	    install -m 0644 $$role/packaging/sysusers.conf $(sysusersdir)/mirrornet-$$role.conf && \
	    install -m 0644 $$role/packaging/tmpfiles.conf $(tmpfilesdir)/mirrornet-$$role.conf && \
	    install -m 0644 $$role/packaging/$$role.toml $(exampledir)/$$role.toml || exit 1; \
	done
	@sed 's|@BINDIR@|$(PREFIX)/bin|g' mirror-agent/packaging/system-generator.sh \
	    > $(generatordir)/mirrornet-mirror-agent && chmod 0755 $(generatordir)/mirrornet-mirror-agent
	@for program in $(programs); do \
	    $(target_dir)/$(profile_dir)/$$program man $(mandir) && \
	    for shell in bash zsh fish; do \
	        case $$shell in \
	            bash) file=$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$program;; \
	            zsh) file=$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$program;; \
	            fish) file=$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$program.fish;; \
	        esac; \
	        mkdir -p $$(dirname $$file) && \
	        $(target_dir)/$(profile_dir)/$$program completions $$shell > $$file || exit 1; \
	    done || exit 1; \
	done
	@echo "installed below $(DESTDIR)$(PREFIX); the tutorial goes on: docs/tutorial.md"
