//! The proxy's listeners: where connections of routes with HTTP rules come in.

use std::num::NonZeroU32;

use super::Node;
use crate::{
    kernel::{Delivery, KernelError, Listeners, passed::Named},
    settings::{ProxyMark, Settings},
};

impl Node {
    /// Opens listeners and has connections handed to them, as `proxy` of the configuration says: see
    /// [`Datapath::listen`](crate::kernel::Datapath::listen).
    ///
    /// # Errors
    /// As there, or nothing is loaded.
    pub fn listen(
        &mut self,
        shards: NonZeroU32,
        settings: &Settings,
        given: Named,
    ) -> Result<Listeners, KernelError> {
        let ProxyMark { handed, own } = settings.proxy_mark;
        let delivery = Delivery { handed, own, table: settings.proxy_table };
        self.loaded()?.listen(shards, &delivery, given)
    }

    /// Has connections handed to the proxy no more: see
    /// [`Datapath::unlisten`](crate::kernel::Datapath::unlisten).
    ///
    /// # Errors
    /// As there, or nothing is loaded.
    pub fn unlisten(&mut self) -> Result<(), KernelError> {
        self.loaded()?.unlisten()
    }
}
