//! How much a test does. A guest without KVM is ten to twenty times slower than the machine
//! below it, and has little memory.

use std::{sync::OnceLock, time::Duration};

/// Where the tests run, as `$BALANCER_SCALE` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// A machine, or a guest with KVM.
    Host,
    /// A guest whose instructions are translated one by one.
    Guest,
}

const VARIABLE: &str = "BALANCER_SCALE";

impl Scale {
    fn read(value: Option<&str>) -> Result<Self, String> {
        match value {
            None | Some("host") => Ok(Self::Host),
            Some("guest") => Ok(Self::Guest),
            Some(other) => Err(format!("{VARIABLE} is `{other}`; it may be `host` or `guest`")),
        }
    }

    fn of_environment() -> Self {
        static SCALE: OnceLock<Scale> = OnceLock::new();
        *SCALE.get_or_init(|| {
            let value = std::env::var_os(VARIABLE).map(|value| value.display().to_string());
            Self::read(value.as_deref()).unwrap_or_else(|wrong| panic!("{wrong}"))
        })
    }
}

/// `host`, or `guest` with `BALANCER_SCALE=guest`.
///
/// # Panics
/// If the variable has any other value than `host` and `guest`.
pub fn scaled<T>(host: T, guest: T) -> T {
    match Scale::of_environment() {
        Scale::Host => host,
        Scale::Guest => guest,
    }
}

/// How long to wait for what takes `host` at most on a machine.
pub fn patience(host: Duration) -> Duration {
    host * scaled(1, 10)
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn a_scale_that_nobody_knows_is_refused() {
        assert_eq!(Scale::read(None), Ok(Scale::Host));
        assert_eq!(Scale::read(Some("host")), Ok(Scale::Host));
        assert_eq!(Scale::read(Some("guest")), Ok(Scale::Guest));
        let wrong = Scale::read(Some("vm")).expect_err("no scale");
        assert!(wrong.contains("BALANCER_SCALE is `vm`") && wrong.contains("`guest`"), "{wrong}");
    }
}
