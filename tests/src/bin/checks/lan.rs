//! Two hosts and a cable: network namespaces of this check's own, joined by a link that can be cut
//! in each direction. Whoever sends into a cut hears nothing: no refusal, no reset.

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    A,
    B,
}

impl Host {
    fn suffix(self) -> char {
        if self == Self::A { 'a' } else { 'b' }
    }

    /// Its address on the link.
    pub(crate) fn ip(self) -> &'static str {
        if self == Self::A { "10.77.0.1" } else { "10.77.0.2" }
    }

    fn mac(self) -> &'static str {
        if self == Self::A { "02:00:00:77:00:01" } else { "02:00:00:77:00:02" }
    }

    fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }
}

/// The name of the link in both namespaces.
const LINK: &str = "lan";

/// How their namespaces are called: with the number of the process that has made them.
const PREFIX: &str = "rpc-checks-";

/// Gone when dropped, with its link.
#[derive(Debug)]
pub(crate) struct Lan {
    name: String,
}

impl Lan {
    /// Why there can be none here.
    pub(crate) fn missing() -> Option<&'static str> {
        if !cfg!(feature = "dangerous-plaintext") {
            return Some("built without the feature dangerous-plaintext");
        }
        let found = |tool, flag| Command::new(tool).arg(flag).output().is_ok();
        if !found("ip", "-V") || !found("tc", "-V") {
            return Some("no ip or no tc here: install iproute2");
        }
        Self::new().err().map(|_| "this user may not make network namespaces")
    }

    /// Removes what checks have left that were killed.
    pub(crate) fn sweep() {
        let Ok(names) = std::fs::read_dir("/run/netns") else { return };
        for name in names.flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = call("ip", &["netns", "del", &name]);
            }
        }
    }

    pub(crate) fn new() -> anyhow::Result<Self> {
        static LANS: AtomicU32 = AtomicU32::new(0);
        let number = LANS.fetch_add(1, Ordering::Relaxed);
        let lan = Self { name: format!("{PREFIX}{}-{number}", std::process::id()) };
        for host in [Host::A, Host::B] {
            call("ip", &["netns", "add", &lan.namespace(host)])?;
        }
        let (a, b) = (lan.namespace(Host::A), lan.namespace(Host::B));
        let ends = ["link", "add", LINK, "netns", &a, "type", "veth", "peer", LINK, "netns", &b];
        call("ip", &ends)?;
        [Host::A, Host::B].into_iter().try_for_each(|host| lan.bring_up(host))?;
        Ok(lan)
    }

    fn bring_up(&self, host: Host) -> anyhow::Result<()> {
        let address = format!("{}/24", host.ip());
        let (namespace, other) = (self.namespace(host), host.other());
        // The neighbour is known for good: a link that is cut in one direction must not end in the
        // other one because nobody answers who is there.
        let neighbour = [
            "neigh",
            "replace",
            other.ip(),
            "lladdr",
            other.mac(),
            "dev",
            LINK,
            "nud",
            "permanent",
        ];
        for command in [
            &["link", "set", LINK, "address", host.mac()][..],
            &["addr", "add", &address, "dev", LINK],
            &["link", "set", LINK, "up"],
            &["link", "set", "lo", "up"],
            &neighbour,
        ] {
            call("ip", &[&["-n", &namespace][..], command].concat())?;
        }
        Ok(())
    }

    pub(crate) fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.name, host.suffix())
    }

    /// What these hosts send is lost.
    pub(crate) fn cut(&self, senders: &[Host]) -> anyhow::Result<()> {
        senders.iter().try_for_each(|host| {
            let (namespace, queue) = (self.namespace(*host), ["root", "pfifo", "limit", "0"]);
            let start = ["-n", &namespace, "qdisc", "replace", "dev", LINK];
            call("tc", &[&start[..], &queue].concat())
        })
    }

    /// What these hosts send arrives again.
    pub(crate) fn heal(&self, senders: &[Host]) -> anyhow::Result<()> {
        senders.iter().try_for_each(|host| {
            call("tc", &["-n", &self.namespace(*host), "qdisc", "del", "dev", LINK, "root"])
        })
    }

    /// Moves the current thread to a host, and with it the threads that it starts.
    pub(crate) fn enter(&self, host: Host) -> anyhow::Result<()> {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(host)))
            .context("the namespace of a host")?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("moving to a host")
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in [Host::A, Host::B] {
            let _ = call("ip", &["netns", "del", &self.namespace(host)]);
        }
    }
}

fn call(tool: &str, args: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(tool).args(args).output().with_context(|| format!("running {tool}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{tool} {}: {}", args.join(" "), said.trim());
    Ok(())
}
