#!/bin/sh
# Installs what a make target needs from the system's packages: need.sh build|demo|test|bench|lint…
# As root or with sudo it installs; otherwise it says which command would.
set -eu

missing=''
need() { # COMMAND DEBIAN-PACKAGE FEDORA-PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $1:$2:$3"
}

for target in "$@"; do
    case $target in
        build) need cc gcc gcc; need make make make ;;
        demo) need rsync rsync rsync; need sha256sum coreutils coreutils ;;
        test)
            need mkfs.ext4 e2fsprogs e2fsprogs; need mkfs.xfs xfsprogs xfsprogs
            need mkfs.btrfs btrfs-progs btrfs-progs; need mount mount util-linux
            need rsync rsync rsync
            need rdiff rdiff rdiff
            need sshd openssh-server openssh-server; need ssh openssh-client openssh-clients
            need stunnel stunnel4 stunnel
            need tinyproxy tinyproxy tinyproxy
            need nginx nginx-light nginx; need apache2 apache2 httpd
            need openssl openssl openssl
            need sha256sum coreutils coreutils
            need systemd-analyze systemd systemd
            python3 -c 'import ensurepip' 2>/dev/null || need python3-with-venv python3-venv python3
            need ip iproute2 iproute; need nsenter util-linux util-linux
            need strace strace strace
            ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need initdb postgresql postgresql-server
            ;;
        bench)
            need mkfs.ext4 e2fsprogs e2fsprogs; need mkfs.xfs xfsprogs xfsprogs
            need mkfs.btrfs btrfs-progs btrfs-progs; need mount mount util-linux
            need rsync rsync rsync
            need zstd zstd zstd
            need find findutils findutils
            need python3 python3 python3; need tar tar tar
            python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip python3-pip
            need strace strace strace
            need ip iproute2 iproute; need nsenter util-linux util-linux
            need nginx nginx-light nginx
            need openssl openssl openssl
            ;;
        lint)
            cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
            ;;
        *) echo "need.sh: unknown target $target" >&2; exit 2 ;;
    esac
done

# Object stores, which no package has: into target/tools, once.
object_stores() {
    tools=${CARGO_TARGET_DIR:-target}/tools
    [ -x "$tools/bin/s3s-fs" ] || {
        echo 'installing the object store s3s-fs into target/tools (some minutes, once)' >&2
        cargo install --quiet --debug --locked --root "$tools" --features binary \
            s3s-fs --version 0.14.1 ||
            echo 'need.sh: s3s-fs cannot be installed; the tests with it will be skipped' >&2
    }
    [ -x "$tools/moto/bin/moto_server" ] || {
        echo 'installing the object store moto into target/tools (once)' >&2
        { python3 -m venv "$tools/moto" &&
            "$tools/moto/bin/pip" install --quiet 'moto[server,s3]==5.2.5'; } ||
            echo 'need.sh: moto cannot be installed; the tests with it will be skipped' >&2
    }
    [ -x "$tools/azurite/node_modules/.bin/azurite-blob" ] || {
        echo 'installing the object store Azurite into target/tools (once; needs npm)' >&2
        npm install --silent --no-audit --no-fund --no-save --prefix "$tools/azurite" \
            azurite@3.37.0 >/dev/null ||
            echo 'need.sh: Azurite cannot be installed; the tests with it will be skipped' >&2
    }
}

if ! command -v cargo >/dev/null 2>&1; then
    echo "There is no cargo here. Install Rust 1.94 or newer with rustup (https://rustup.rs)," >&2
    echo "or the packages rustc and cargo of a system that has them this new, and try again." >&2
    exit 1
fi
finish() {
    case " $* " in *' test '*) object_stores ;; esac
    exit 0
}
[ -n "$missing" ] || finish "$@"

if command -v apt-get >/dev/null 2>&1; then
    packages=$(for item in $missing; do echo "$item" | cut -d: -f2; done | sort -u | tr '\n' ' ')
    # A server that a package would start has no business in a test: this file says so meanwhile.
    no_start='policy=/usr/sbin/policy-rc.d
        [ -e $policy ] || {
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy
        }'
    install="DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages"
    update='apt-get update'
elif command -v dnf >/dev/null 2>&1; then
    packages=$(for item in $missing; do echo "$item" | cut -d: -f3; done | sort -u | tr '\n' ' ')
    install="dnf install -y $packages"
    no_start=:
    update=true
else
    echo "Missing: $(for item in $missing; do echo "$item" | cut -d: -f1; done | tr '\n' ' ')" >&2
    echo "Install them with this system's package manager and try again." >&2
    exit 1
fi

if [ "$(id -u)" = 0 ]; then
    as_root='sh -c'
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root='sudo sh -c'
else
    echo "Missing packages: $packages" >&2
    echo "Run this as root, then try again:" >&2
    echo "    $update && $install" >&2
    exit 1
fi
echo "installing: $packages" >&2
$as_root "$no_start
$update && $install" >/dev/null
finish "$@"
