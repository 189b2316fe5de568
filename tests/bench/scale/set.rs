//! Many services, as files.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result};
use balancer_user::compile::Limits;

/// Documents in a file.
const IN_A_FILE: usize = 2000;

/// Every so many services one has a TrafficRoute.
pub(crate) const ROUTED: usize = 10;

/// Writes a Dataplane for each of `reals` reals of each of `services` services, a TrafficRoute
/// for every `routed`th service that splits 90/10 between its two versions, and a Mesh.
pub(crate) fn write(dir: &Path, (services, reals): (usize, usize), routed: usize) -> Result<()> {
    let mut files = Files::new(dir, "", IN_A_FILE);
    files.add("type: Mesh\nname: default\n")?;
    for n in 0..services * reals {
        let address = Ipv4Addr::from(0x0a00_0001 + n as u32);
        let (service, version) = (n / reals, n % reals % 2 + 1);
        files.add(&format!(
            "type: Dataplane\nmesh: default\nname: dataplane-{n:06}\nnetworking:\n  address: \
             {address}\n  inbound:\n  - port: 8080\n    tags: {{kuma.io/service: \
             service-{service:06}, version: v{version}}}\n"
        ))?;
    }
    for service in (0..services).step_by(routed) {
        let service = format!("service-{service:06}");
        let split = [(90, 1), (10, 2)].map(|(weight, version)| {
            format!(
                "  - {{weight: {weight}, destination: {{kuma.io/service: {service}, version: \
                 v{version}}}}}\n"
            )
        });
        files.add(&format!(
            "type: TrafficRoute\nmesh: default\nname: {service}\nsources: [{{match: \
             {{kuma.io/service: '*'}}}}]\ndestinations: [{{match: {{kuma.io/service: \
             {service}}}}}]\nconf:\n  loadBalancer: {{maglev: {{}}}}\n  split:\n{}",
            split.concat()
        ))?;
    }
    files.flush()
}

/// Documents that come to files one after the other.
pub(crate) struct Files<'a> {
    dir: &'a Path,
    /// What their names begin with.
    prefix: &'static str,
    /// Documents in each.
    full: usize,
    text: String,
    documents: usize,
    files: usize,
}

impl<'a> Files<'a> {
    pub(crate) fn new(dir: &'a Path, prefix: &'static str, full: usize) -> Self {
        Self { dir, prefix, full, text: String::new(), documents: 0, files: 0 }
    }

    pub(crate) fn add(&mut self, document: &str) -> Result<()> {
        let between = if self.text.is_empty() { "" } else { "---\n" };
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{between}{document}");
        self.documents += 1;
        if self.documents == self.full { self.flush() } else { Ok(()) }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.documents > 0 {
            let path = self.dir.join(format!("{}{:05}.yaml", self.prefix, self.files));
            fs::write(&path, &self.text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            self.files += 1;
        }
        (self.text, self.documents) = (String::new(), 0);
        Ok(())
    }
}

/// Limits for a set of this size, with room for a tenth more; `slots` for each service.
pub(crate) fn limits((services, reals): (usize, usize), slots: usize) -> Limits {
    let more = |n: usize| u32::try_from(n + n / 10).unwrap_or(u32::MAX);
    Limits {
        services: more(services),
        sources: more(services * reals),
        routes: more(services),
        reals: more(services * reals),
        counters: more(services * 2),
        arena_slots: more(services * slots),
        ..Limits::default()
    }
}
