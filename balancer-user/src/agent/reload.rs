//! The configuration file, read again: what of it is applied at once, and what waits.

use std::path::{Path, PathBuf};

use super::problems::{self, Broken};
use crate::{
    policy,
    settings::{self, Settings},
};

/// A key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: &'static str,
    pub(super) old: String,
    pub(super) new: String,
    /// It is applied without a restart.
    pub(super) live: bool,
}

/// Reads the file as at the start.
pub(super) fn read(path: &Path) -> Result<Settings, Broken> {
    let texts = policy::gather(&[PathBuf::from(path)]).map_err(|error| Broken::input(&error))?;
    let Some(text) = texts.front() else { return Ok(Settings::default()) };
    let documents = policy::Documents::whole(texts.clone());
    let told = |findings: Vec<policy::Diagnostic>| {
        let problems: Vec<_> =
            findings.iter().map(|finding| problems::problem(&documents, finding)).collect();
        let total = problems.len();
        Broken { problems, total, again: false }
    };
    let settings = settings::read(text).map_err(&told)?;
    let mut undone = settings::undone(&settings);
    undone.retain(policy::Diagnostic::is_error);
    if undone.is_empty() { Ok(settings) } else { Err(told(undone)) }
}

/// What differs between two configurations.
pub(super) fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    macro_rules! compare {
        ($($key:literal, $live:literal, $field:ident;)*) => {$(
            if old.$field != new.$field {
                changes.push(Change {
                    key: $key,
                    old: format!("{:?}", old.$field),
                    new: format!("{:?}", new.$field),
                    live: $live,
                });
            }
        )*};
    }
    compare! {
        "policies", true, policies;
        "attach", true, attach;
        "forwarding", true, forwarding;
        "snat.ports", true, snat_ports;
        "vips.ipv4", true, vips4;
        "vips.ipv6", true, vips6;
        "vips.protocols", true, protocols;
        "zone", true, zone;
        "no_route", true, no_route;
        "gateway_controller", true, gateway_controller;
        "allow_plain", true, allow_plain;
        "drain", true, drain;
        "l7_fallback", true, l7_fallback;
        "proxy.shards", false, proxy_shards;
        "proxy.forwarded", false, proxy_added;
        "proxy.limits", false, proxy_limits;
        "proxy.mark", false, proxy_mark;
        "proxy.table", false, proxy_table;
        "limits", false, limits;
        "limits.new_flows", true, new_flows;
        "dns.servers", true, dns_servers;
        "log", false, log;
        "metrics", false, metrics;
        "api.socket", false, api_socket;
        "bpffs", false, bpffs;
        "state", false, state;
    }
    changes
}

/// Takes over what is applied at once; the rest stays as the agent was started with.
pub(super) fn apply(settings: &mut Settings, new: Settings) {
    let old = std::mem::take(settings);
    *settings = Settings {
        proxy_shards: old.proxy_shards,
        proxy_added: old.proxy_added,
        proxy_limits: old.proxy_limits,
        proxy_mark: old.proxy_mark,
        proxy_table: old.proxy_table,
        limits: old.limits,
        log: old.log,
        metrics: old.metrics,
        api_socket: old.api_socket,
        bpffs: old.bpffs,
        state: old.state,
        // The keys that the file has decide which limits must be those pinned.
        present: old.present,
        ..new
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile::Limits, settings::NewFlows};

    #[test]
    fn keys_that_wait_for_a_restart_stay_as_they_were() {
        let mut settings = Settings::default();
        let new = Settings {
            zone: Some("east".to_owned()),
            limits: Some(Limits { flows: 7, ..Limits::default() }),
            new_flows: NewFlows::Any,
            ..Settings::default()
        };
        let changes = changes(&settings, &new);
        let told: Vec<_> = changes.iter().map(|change| (change.key, change.live)).collect();
        assert_eq!(told, [("zone", true), ("limits", false), ("limits.new_flows", true)]);
        apply(&mut settings, new);
        assert_eq!(settings.zone.as_deref(), Some("east"));
        assert_eq!(settings.limits, None);
        assert_eq!(settings.new_flows, NewFlows::Any);
        assert_eq!(super::changes(&settings, &settings.clone()), []);
    }
}
