# Sourced by ./demo and ./test: installs from Debian's packages what is missing, where it may.

# need COMMAND PACKAGE
need() { command -v "$1" >/dev/null || install "$2" "$1 is"; }

# install PACKAGE "what is"
install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$2 missing: install $1 (a Debian package)" >&2
        exit 1
    fi
    apt-get update -qq >&2
    # RUNLEVEL=1: a service that comes with a package is not started.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2
}

# What every build needs: rdkafka and jemalloc are built from C, and Kafka's TLS is OpenSSL's.
need_compiler() {
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (rustup.rs)" >&2; exit 1; }
    need cc gcc
    need make make
    need pkg-config pkg-config
    pkg-config --exists openssl || install libssl-dev "OpenSSL's headers are"
}
