//! The proxy beside the datapath: started when a set has HTTP rules for the first time, and told
//! of each set before packets follow it.

use std::{io, num::NonZeroU32, os::fd::BorrowedFd, sync::Arc, time::Duration};

use tracing::{error, info, warn};

use super::{problems::Broken, state::Problem, supervisor};
use crate::{
    kernel::{Listeners, passed::Named},
    node::Node,
    proxy::{Counters, End, Live, Options, Proxy, Taking},
    resolve::Resolved,
    settings::Settings,
};

/// What a request may take when the agent ends.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The proxy, where there is one.
#[derive(Default)]
pub(super) struct Requests {
    proxy: Option<Proxy>,
    /// Listeners of the process before, until the first set has said whether there is a proxy.
    given: Named,
    /// The service manager has the listeners too.
    kept: bool,
    /// The proxy's listeners once more, for a successor.
    listeners: Named,
    /// Why there is none, as said last.
    said: Option<String>,
}

/// The rules before a publish.
pub(super) struct Before(Option<Arc<Live>>);

impl Requests {
    /// With listeners that another process had.
    pub(super) fn new(given: Named) -> Self {
        Self { given, ..Self::default() }
    }

    /// Closes listeners of another process that the first set had no use for: what would wait in
    /// their queues goes by `l7_fallback`.
    pub(super) fn close_unused(&mut self) {
        for (name, _listener) in self.given.drain(..) {
            info!(name, "a listener of the agent before is closed: no proxy has begun");
            supervisor::forget(&name);
        }
    }

    /// Has requests go by the rules of a set, and connections come to the proxy where they do not
    /// yet. To be called before the set is published: a connection that follows it is met by its
    /// rules. Where there can be no proxy, `l7_fallback` holds, and it is tried again with the
    /// next set.
    ///
    /// # Errors
    /// Rules that contradict themselves.
    pub(super) fn follow(
        &mut self,
        node: &mut Node,
        settings: &Settings,
        resolved: &Resolved,
    ) -> Result<Before, Broken> {
        let before = self.proxy.as_ref().map(Proxy::live);
        let live = Live::new(resolved, before.as_deref().unwrap_or(&Live::default()));
        let live = Arc::new(live.map_err(|error| {
            Broken::one(Problem { message: error.to_string(), ..Problem::default() })
        })?);
        if self.proxy.is_none() && resolved.routes.iter().any(|route| route.http.is_some()) {
            match begin(node, settings, Arc::clone(&live), std::mem::take(&mut self.given)) {
                Ok(Begun { proxy, kept, listeners }) => {
                    self.said = None;
                    (self.kept, self.listeners) = (kept, listeners);
                    self.proxy = Some(proxy);
                }
                Err(why) => {
                    if self.said.as_ref() != Some(&why) {
                        error!("HTTP rules are not carried out, `l7_fallback` holds: {why}");
                        self.said = Some(why);
                    }
                }
            }
        }
        if let Some(proxy) = &self.proxy {
            proxy.publish(live);
        }
        // One that has just begun has no other rules: for connections of the set before, those of
        // this one are better than none.
        Ok(Before(before))
    }

    /// The set did not become live.
    pub(super) fn undo(&self, before: Before) {
        if let (Some(proxy), Before(Some(live))) = (&self.proxy, before) {
            proxy.publish(live);
        }
    }

    /// What the proxy counts; `None`: there is none.
    pub(super) fn counters(&self) -> Option<Counters> {
        self.proxy.as_ref().map(Proxy::counters)
    }

    /// The listeners, for a successor.
    pub(super) fn listeners(&mut self) -> Named {
        std::mem::take(&mut self.listeners)
    }

    /// Ends the proxy once what is under way has ended, where another one serves.
    pub(super) fn leave(&mut self) {
        let Some(proxy) = self.proxy.take() else { return };
        info!("the proxy stops");
        self.listeners.clear();
        proxy.stop(End { within: STOP_WITHIN, taking: Taking::OnTheWay });
    }

    /// Ends the proxy once what is under way has ended.
    pub(super) fn stop(&mut self, node: &mut Node) {
        let Some(proxy) = self.proxy.take() else { return };
        self.listeners.clear();
        let taking = if self.kept {
            info!("the proxy stops; connections wait for the next one where there is to be one");
            Taking::WhileOthersLast
        } else {
            info!("the proxy stops; `l7_fallback` holds from now on");
            // Where that fails, the end of the listeners has it happen.
            if let Err(error) = node.unlisten() {
                warn!(%error, "connections are handed to the proxy until it has ended");
            }
            Taking::OnTheWay
        };
        proxy.stop(End { within: STOP_WITHIN, taking });
    }
}

struct Begun {
    proxy: Proxy,
    kept: bool,
    listeners: Named,
}

/// Has connections handed to a new proxy.
fn begin(
    node: &mut Node,
    settings: &Settings,
    live: Arc<Live>,
    given: Named,
) -> Result<Begun, String> {
    let shards = settings.proxy_shards.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism();
        let processors = processors.map_or(1, std::num::NonZeroUsize::get);
        NonZeroU32::new(processors.min(16) as u32).unwrap_or(NonZeroU32::MIN)
    });
    raise_files();
    let listeners = node.listen(shards, settings, given).map_err(|error| error.to_string())?;
    for (name, why) in &listeners.refused {
        warn!(name, "a listener of the agent before is closed: {why}");
        supervisor::forget(name);
    }
    let kept = supervisor::keep(listeners.named()).unwrap_or_else(|error| {
        warn!(%error, "the service manager cannot be given the listeners: a restart closes them");
        false
    });
    let again = |(name, file): (String, BorrowedFd<'_>)| Ok((name, file.try_clone_to_owned()?));
    let once_more: io::Result<Named> = listeners.named().map(again).collect();
    let once_more = once_more.map_err(|error| error.to_string())?;
    let Listeners { ipv4, ipv6, taken, .. } = listeners;
    let mut lists: Vec<Vec<_>> = ipv4.into_iter().map(|listener| vec![listener]).collect();
    for (list, listener) in lists.iter_mut().zip(ipv6) {
        list.push(listener);
    }
    let options = Options {
        limits: settings.proxy_limits,
        added: settings.proxy_added,
        mark: Some(settings.proxy_mark.own),
    };
    let proxy = Proxy::start(lists, live, options).map_err(|error: io::Error| error.to_string())?;
    info!(shards, taken = taken.len(), "the proxy begins");
    Ok(Begun { proxy, kept, listeners: once_more })
}

/// Every connection is a file: as many as the process may have.
fn raise_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        warn!(%error, "cannot raise the number of open files");
    }
}
