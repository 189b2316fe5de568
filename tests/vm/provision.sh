#!/bin/bash
# Installs the Debian packages that balancer's build, tests and demo need. `cargo xtask setup`
# calls it with those that are missing; lima.yaml and Vagrantfile call it without arguments in a
# new machine. It needs nothing beside itself, so it can be copied anywhere and run there.
set -euo pipefail

usage() {
    cat <<'END'
usage: provision.sh              install the packages of every group but `bench`, `fuzz` and `provision` (root)
       provision.sh PACKAGE...   install these (root)
       provision.sh --list       print every need: group, package, how to see that it is there, why
What is installed already is left as it is: a second run changes nothing.
END
}

# The list of what is needed, and the only one: `cargo xtask setup` reads it by --list.
# Groups: `build` the objects and programs, `run` tests and demo, `vm` tests in guests, `loaders`
# the tests of other BPF loaders, `metrics` the test of what the agent shows to Prometheus, `quic`
# the test of QUIC through UDP, `proxies` what our HTTP proxy is compared with, `bench` what
# `cargo xtask bench l4` and `l7` measure balancer beside, `fuzz` fuzzing, `provision` the
# test of this script, `bare` what every machine with rustup on it has anyway.
# The third column says how setup sees that it is there: `toolchain` (a Rust toolchain for BPF),
# `program:NAME` (on PATH or in /usr/sbin), `header:NAME` (the C compiler finds it), `path:FILE`
# (the file is there), `-` (not looked for).
needs() {
    sed -e '/^$/d' <<'END'
build      rustc-web                 toolchain                   the programs are compiled for BPF, which needs `core` for that target
build      cargo-web                 toolchain                   the programs are compiled for BPF, which needs `core` for that target
build      libstd-rust-web-dev-bpf   toolchain                   the programs are compiled for BPF, which needs `core` for that target

run        iproute2                  program:ip                  tests and demo build network namespaces and veth pairs with it
run        ethtool                   program:ethtool             tests switch checksum and segmentation offloads with it
run        nftables                  program:nft                 tests set up firewalls that balancer has to live with

vm         qemu-system-x86           program:qemu-system-x86_64  tests boot other kernels in it
vm         kmod                      program:modprobe            tests ask it which modules a guest has to load
vm         xz-utils                  program:xz                  modules of Linux 6.12 are compressed with it

loaders    bpftool                   program:bpftool             tests load the object with it too
loaders    make                      program:make                libbpf is compiled with it
loaders    pkgconf                   program:pkg-config          libbpf's build finds libelf with it
loaders    libelf-dev                header:libelf.h             libbpf reads objects with it
loaders    zlib1g-dev                header:zlib.h               libelf unpacks sections with it

metrics    prometheus                program:prometheus          tests let it and its promtool read what the agent serves

quic       ngtcp2-client             program:gtlsclient          tests fetch a file over QUIC with it
quic       ngtcp2-server             program:gtlsserver          tests serve a file over QUIC with it
quic       openssl                   program:openssl             tests make its certificate with it

proxies    haproxy                   program:haproxy             tests send it the malformed requests that our proxy gets
proxies    nginx                     program:nginx               tests send it the malformed requests that our proxy gets

bench      nftables                  program:nft                 `bench l4` measures DNAT by a hash map of it
bench      iptables                  program:iptables-restore    `bench l4` measures DNAT by random rules of it
bench      haproxy                   program:haproxy             `bench l4` and `l7` measure it
bench      nginx                     program:nginx               `bench l4` and `l7` measure it; servers of `l7`
bench      libnginx-mod-stream       path:/usr/lib/nginx/modules/ngx_stream_module.so  `bench l4` measures nginx with it
bench      python3-pip               program:pip3                `bench l4` measures Envoy, which PyPI has and Debian has not

fuzz       g++                       program:c++                 libFuzzer is compiled with it

provision  debootstrap               program:debootstrap         the test of the provision script makes a new Debian with it

bare       ca-certificates           -                           cargo fetches crates by https
END
}

fail() {
    printf 'provision: %s\n' "$@" >&2
    exit 1
}

# `build.rs` and the user space programs want it; Cargo.toml says the same.
OLDEST_RUST=1.95

if [[ ${1-} == --list && $# == 1 ]]; then
    needs
    exit
elif [[ ${1-} == -* ]]; then
    usage >&2
    exit 2
fi
if (($#)); then
    wanted=("$@")
else
    mapfile -t wanted < <(needs | awk '$1 !~ /^(bench|fuzz|provision)$/ { print $2 }')
fi

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
done
if ! ((${#missing[@]})); then
    echo "provision: nothing to do, ${#wanted[@]} packages are installed"
    exit
fi

grep -qs '^ID=debian$' /etc/os-release ||
    fail "this is not Debian, whose packages it would install: ${missing[*]}"
((EUID == 0)) || fail "installing ${missing[*]} needs root: sudo $0 $*"

# A new machine may still be busy with its own first updates.
apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet \
        --option DPkg::Lock::Timeout=300 --option Acquire::Retries=3 "$@"
}
apt_get update || fail "the package lists cannot be fetched: see apt's words above"

# Of the Rust packages, only the security archive's are new enough.
if [[ " ${missing[*]} " == *' rustc-web '* ]]; then
    candidate=$(apt-cache policy rustc-web | awk '$1 == "Candidate:" { print $2 }')
    if [[ -z $candidate || $candidate == '(none)' ]] ||
        dpkg --compare-versions "$candidate" lt "$OLDEST_RUST"; then
        fail "apt offers rustc-web ${candidate:-not at all} and $OLDEST_RUST or newer is needed" \
            'it comes from the security archive (bookworm-security, trixie-security):' \
            'name that in /etc/apt/sources.list.d, or use another toolchain:' \
            '`rustup toolchain install nightly --component rust-src`'
    fi
fi

# Where tools of QEMU come from backports, they exclude the release's emulator: it then comes from
# there too, for this one installation.
utils=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}' qemu-utils 2>/dev/null || true)
if [[ " ${missing[*]} " == *' qemu-system-x86 '* && $utils == installed\ *~bpo* ]]; then
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        "Codename: $release" 'Component: main' | head -n 1)
    lists=$(mktemp --directory)
    trap 'rm -rf "$lists"' EXIT
    chmod 755 "$lists"
    cp -r /etc/apt/sources.list.d/. "$lists"
    echo "deb $archive $release-backports main" >"$lists/balancer-backports.list"
    sources=(--option "Dir::Etc::SourceParts=$lists")
    apt_get "${sources[@]}" update || fail "the lists of $release-backports cannot be fetched"
    apt_get "${sources[@]}" --target-release "$release-backports" install \
        --no-install-recommends --no-remove qemu-system-x86 ||
        fail "qemu-system-x86 cannot be installed from $release-backports, as qemu-utils was"
    apt_get update || fail "the package lists cannot be fetched: see apt's words above"
fi

# Debian's prometheus, haproxy and nginx bring services. Tests and benches start processes of their
# own, so nothing is to listen here because of them: packages start no service while this script
# installs, and those do not come with the next boot. Whoever had a rule of their own for this keeps
# it.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -rf "$policy" ${lists:+"$lists"}' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

# Without --no-remove apt would take away what rustc-web conflicts with: Debian's own rustc and
# rustup, which somebody chose.
apt_get install --no-install-recommends --no-remove "${missing[@]}" || fail \
    "${missing[*]} cannot be installed" \
    "if apt wants to remove Debian's rustc or rustup for it: either remove that yourself, or keep it and run" \
    '`rustup toolchain install nightly --component rust-src`, which is used instead'
for service in prometheus haproxy nginx; do
    if [[ " ${missing[*]} " == *" $service "* ]] && command -v systemctl >/dev/null; then
        systemctl --quiet disable "$service.service" ||
            fail "the service $service cannot be disabled"
    fi
done
echo "provision: installed ${missing[*]}"
