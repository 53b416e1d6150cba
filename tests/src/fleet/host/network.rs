//! A host's cable: how it is plugged in, pulled, and made to swallow every packet.

use anyhow::Result;

use super::Host;
use crate::fleet::run::must;

impl Host {
    /// Makes the network namespace, its cable to the hub's bridge, and its address.
    pub(super) fn connect_network(&self) -> Result<()> {
        let (hub, own, port) = (self.names.hub_namespace(), self.namespace(), self.name());
        let address = format!("{}/24", self.address());
        must("ip", &["netns", "add", &own])?;
        must("ip", &["-n", &own, "link", "set", "lo", "up"])?;
        // A network card keeps its address over a power cut; with a new one, others would talk to the
        // old one until their neighbour caches notice.
        let card = format!("02:64:68:6f:{:02x}:{:02x}", self.names.number(), self.number);
        let cable = ["type", "veth", "peer", "name", "eth0", "address", &card, "netns", &own];
        must("ip", &[["-n", &hub, "link", "add", &port].as_slice(), &cable].concat())?;
        must("ip", &["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
        must("ip", &["-n", &own, "address", "add", &address, "dev", "eth0"])?;
        must("ip", &["-n", &own, "link", "set", "eth0", "up"])?;
        must("ip", &["-n", &own, "route", "add", "default", "via", &self.names.hub_address()])?;
        Ok(())
    }

    /// Pulls its cable: both sides see that the link is down.
    ///
    /// # Errors
    ///
    /// When `ip` refuses.
    pub fn link_down(&self) -> Result<()> {
        must("ip", &["-n", &self.names.hub_namespace(), "link", "set", &self.name(), "down"])?;
        must("ip", &["-n", &self.namespace(), "link", "set", "eth0", "down"]).map(drop)
    }

    /// Plugs its cable in again.
    ///
    /// # Errors
    ///
    /// When `ip` refuses.
    pub fn link_up(&self) -> Result<()> {
        let own = self.namespace();
        must("ip", &["-n", &self.names.hub_namespace(), "link", "set", &self.name(), "up"])?;
        must("ip", &["-n", &own, "link", "set", "eth0", "up"])?;
        // The kernel forgot the route with the link.
        must("ip", &["-n", &own, "route", "replace", "default", "via", &self.names.hub_address()])
            .map(drop)
    }

    /// Drops all its packets, in and out, without telling anybody: what only time-outs can find.
    ///
    /// # Errors
    ///
    /// When `iptables` refuses.
    pub fn silence(&self) -> Result<()> {
        self.silencing("-I")
    }

    /// Ends [`Host::silence`].
    ///
    /// # Errors
    ///
    /// When it was not silenced.
    pub fn unsilence(&self) -> Result<()> {
        self.silencing("-D")
    }

    fn silencing(&self, verb: &str) -> Result<()> {
        // Before and after all other tables, so that connections of containers are hit as well.
        let rules = [["raw", "PREROUTING", "-i"], ["mangle", "POSTROUTING", "-o"]];
        for [table, chain, direction] in rules {
            let rule =
                ["iptables", "-w", "-t", table, verb, chain, direction, "eth0", "-j", "DROP"];
            self.exec(&rule)?.ok()?;
        }
        Ok(())
    }
}
