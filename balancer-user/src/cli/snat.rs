//! Source translation, as `load` and `status` tell it.

use serde::Serialize;

use crate::kernel::Snat;

/// Where it is asked for; names of fields are those of `-o json`.
#[derive(Serialize)]
pub(crate) struct Told {
    /// The ports that reals see: `FIRST-LAST`.
    ports: String,
    /// Interfaces at which such flows begin.
    interfaces: Vec<String>,
}

impl From<Snat> for Told {
    fn from(Snat { ports, interfaces }: Snat) -> Self {
        Self { ports: format!("{}-{}", ports.start(), ports.end()), interfaces }
    }
}

impl Told {
    /// One line.
    pub(crate) fn line(&self) -> String {
        format!("{} with ports {}", self.interfaces.join(", "), self.ports)
    }

    /// Cells of a table: interface, ports.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: &String| vec![name.clone(), format!("ports {}", self.ports)];
        self.interfaces.iter().map(row).collect()
    }
}
