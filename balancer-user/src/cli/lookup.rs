//! Host names of policies, asked once of this system's resolver: for commands that resolve a set
//! by themselves. The agent asks again as answers grow old.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, ToSocketAddrs},
    thread,
};

use super::output::{self, count};
use crate::{
    policy::PolicySet,
    resolve::{Names, host_names},
};

/// Names that are asked for at the same time: one that times out holds nobody up for long.
const AT_ONCE: usize = 16;

/// What the names of sets stand for; says on standard error that they were asked for.
pub(crate) fn look_up<'s>(sets: impl IntoIterator<Item = &'s PolicySet>) -> Names {
    let wanted: BTreeSet<String> = sets.into_iter().flat_map(host_names).collect();
    if wanted.is_empty() {
        return Names::default();
    }
    let names = ask(&wanted, |name| {
        (name, 0_u16).to_socket_addrs().map(|found| found.map(|addr| addr.ip()).collect())
    });
    let answered = names.iter().filter(|(_, answer)| answer.failure.is_none()).count();
    output::say(&format!(
        "note: asked this system's resolver once for {}, {answered} answered; only the agent asks \
         again",
        count(wanted.len(), "name")
    ));
    names
}

fn ask(
    wanted: &BTreeSet<String>,
    resolver: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Sync,
) -> Names {
    let wanted: Vec<&String> = wanted.iter().collect();
    let mut names = Names::default();
    for some in wanted.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|name| (*name, scope.spawn(|| resolver(name)))).collect();
            for (name, answer) in asked {
                match answer.join() {
                    Ok(Ok(addresses)) => names.insert(name, addresses, None),
                    Ok(Err(error)) => names.insert(name, [], Some(error.to_string())),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gets_its_own_answer() {
        let wanted = (0..40).map(|n| format!("host-{n}.example.com")).collect();
        let names = ask(&wanted, |name| match name {
            "host-7.example.com" => Err(io::Error::other("no such host")),
            "host-8.example.com" => Ok(Vec::new()),
            _ => Ok(vec!["192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap()]),
        });
        assert_eq!(names.iter().count(), 40);
        let failed = names.answer("host-7.example.com").unwrap();
        assert_eq!(failed.failure.as_deref(), Some("no such host"));
        assert!(names.of("host-8.example.com").is_empty());
        let expected: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap()];
        assert_eq!(names.of("host-39.example.com"), expected);
    }
}
