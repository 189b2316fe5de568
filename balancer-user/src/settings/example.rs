//! The configuration file that `balancer config --example` prints.

/// Every key with its default and what it does. Keys without a default are there as comments.
pub const EXAMPLE: &str = include_str!("example.yaml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::SourceText,
        settings::{
            AttachRule, Hook, Log, LogForm, LogLevel, Mode, NewFlows, Settings, read, undone,
        },
    };

    fn parsed(text: &str) -> Settings {
        read(&SourceText { name: "example.yaml".to_owned(), text: text.into() })
            .unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    /// The values alone: which keys are there, and where, is not what they mean.
    fn values(settings: Settings) -> Settings {
        let limits = settings.limits.unwrap_or_default();
        let new_flows = settings.new_flows.limit(&limits);
        Settings {
            new_flows: new_flows.map_or(NewFlows::Any, NewFlows::AtMost),
            limits: Some(limits),
            present: Vec::new(),
            positions: Default::default(),
            ..settings
        }
    }

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(values(parsed(EXAMPLE)), values(Settings::default()));
    }

    /// A comment that begins with `# ` and a key is a key without a default.
    fn with_comments_taken_in() -> String {
        let is_key = |rest: &str| {
            rest.starts_with("- ")
                || rest
                    .split_once(':')
                    .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        };
        EXAMPLE
            .lines()
            // Its example has the same key.
            .filter(|line| *line != "attach: []")
            .map(|line| match line.strip_prefix("#") {
                Some(rest) if is_key(rest) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect()
    }

    #[test]
    fn every_key_is_in_the_example() {
        let text = with_comments_taken_in();
        for key in read::KEYS {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("{key}:"))),
                "`{key}` is missing"
            );
        }
        let settings = parsed(&text);
        assert_eq!(settings.zone.as_deref(), Some("east"));
        assert_eq!(settings.metrics, Some("127.0.0.1:9901".parse().expect("an address")));
        assert_eq!(
            settings.attach,
            [AttachRule {
                interface: "veth*".to_owned(),
                hook: Hook::Tc,
                mode: Mode::Nat,
                generic: false,
                snat: false,
            }]
        );
        assert_eq!(settings.log, Log { form: LogForm::Text, level: LogLevel::Info });
        assert_eq!(undone(&settings), [], "the example asks for nothing that is not done yet");
    }
}
