//! The settings of one node, checked as a whole before anything is touched.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::consensus::ConsensusConfig;
use crate::peer::NodeId;

/// Everything a node needs to know to start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its id, where it was given; a joining node is given one by the cluster.
    pub node_id: Option<NodeId>,
    /// Where clients are served.
    pub listen: SocketAddr,
    /// Where other nodes are served.
    pub peer_listen: SocketAddr,
    /// What clients are told instead of `listen`.
    pub advertise: Option<String>,
    /// What other nodes are told instead of `peer_listen`.
    pub peer_advertise: Option<String>,
    /// Where identity, log and snapshots are kept; created if it does not exist.
    pub data_dir: PathBuf,
    /// What to do when the data directory is empty.
    pub formation: Formation,
    /// Heartbeats, elections, snapshots. Its node id and directory are filled in at the start.
    pub consensus: ConsensusConfig,
    /// How much each client may ask of this node; `None` for as much as it likes.
    pub client_limit: Option<ClientLimit>,
}

/// How much each client of a node may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimit {
    /// What makes two requests those of one client.
    pub by: LimitBy,
    /// Requests a second on average, from 1 to [`MAX_CLIENT_REQUESTS`].
    pub rate_per_second: u32,
    /// Requests at once after a rest, from 1 to [`MAX_CLIENT_REQUESTS`].
    pub burst: u32,
}

/// What makes two requests those of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LimitBy {
    /// The address they come from (of IPv6, its first 64 bits: one client may choose the others).
    Address,
    /// The text of their `X-Api-Key` header, which is not verified; without one, the address.
    ApiKey,
}

/// The highest rate and burst of a [`ClientLimit`]: more than any node answers is no limit.
pub const MAX_CLIENT_REQUESTS: u32 = 1_000_000;

/// How a node with an empty data directory comes to belong to a cluster. One that has data ignores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formation {
    /// It does not: an empty directory is an error.
    Existing,
    /// It forms a cluster of its own, which others join.
    Bootstrap,
    /// It is one of these founders; the one with the lowest id forms the cluster once all of them answer.
    Founders(BTreeMap<NodeId, String>),
    /// It joins the cluster of the node at this client URL.
    Join(String),
}

/// Every mistake in a configuration at once, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Mistakes {}

impl NodeConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// All mistakes, each naming its flag and the remedy.
    pub fn check(&self) -> Result<(), Mistakes> {
        let mut mistakes = Vec::new();
        for (flag, address) in [("--listen", self.listen), ("--peer-listen", self.peer_listen)] {
            // Admin calls share the client listener, and neither TLS nor tokens exist yet.
            if !address.ip().is_loopback() {
                mistakes.push(format!(
                    "{flag} {address} is not a loopback address; without TLS this version serves only 127.0.0.1 or ::1"
                ));
            }
        }
        if self.listen.port() != 0 && self.listen == self.peer_listen {
            mistakes.push(format!("--listen and --peer-listen are both {}; give them two ports", self.listen));
        }
        for (flag, address) in [("--advertise", &self.advertise), ("--peer-advertise", &self.peer_advertise)] {
            if let Some(Err(reason)) = address.as_deref().map(check_advertised) {
                mistakes.push(format!("{flag}: {reason}"));
            }
        }
        self.check_formation(&mut mistakes);
        // The node id may still be unknown; everything else of consensus is not.
        let settings = ConsensusConfig { node_id: self.node_id.unwrap_or(1), ..self.consensus.clone() };
        if let Err(error) = settings.check() {
            mistakes.push(format!("--{}", error.to_string().replacen('_', "-", 2)));
        }
        if let Some(limit) = self.client_limit {
            for (flag, value) in [("--client-rate", limit.rate_per_second), ("--client-burst", limit.burst)] {
                if !(1..=MAX_CLIENT_REQUESTS).contains(&value) {
                    mistakes.push(format!("{flag} is {value}, but must be from 1 to {MAX_CLIENT_REQUESTS}"));
                }
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }

    fn check_formation(&self, mistakes: &mut Vec<String>) {
        match (&self.formation, self.node_id) {
            (Formation::Join(_), Some(_)) => {
                mistakes.push("--node-id cannot be given with --join: the cluster gives the node its id".to_owned());
            }
            (Formation::Bootstrap | Formation::Founders(_), None) => {
                mistakes.push("--node-id is missing: a founder brings its own id, from 1".to_owned());
            }
            (Formation::Founders(founders), Some(id)) if !founders.contains_key(&id) => {
                mistakes
                    .push(format!("--nodes does not name node {id}; every founder, itself included, must be listed"));
            }
            _ => {}
        }
        if let Formation::Founders(founders) = &self.formation {
            let mut addresses: Vec<_> = founders.values().collect();
            addresses.sort();
            addresses.dedup();
            if addresses.len() < founders.len() {
                mistakes.push("--nodes gives two nodes the same address".to_owned());
            }
            for address in founders.values() {
                if let Err(reason) = check_advertised(address) {
                    mistakes.push(format!("--nodes: {reason}"));
                }
            }
        }
    }
}

/// Checks an address that is told to others: `host:port`, and a loopback host as long as there is no TLS.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check_advertised(address: &str) -> Result<(), String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} is not HOST:PORT"))?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 => {}
        _ => return Err(format!("{address:?} has no port from 1 to 65535")),
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback { Ok(()) } else { Err(format!("{address:?} is not a loopback address, and there is no TLS yet")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(formation: Formation) -> NodeConfig {
        NodeConfig {
            node_id: Some(1),
            listen: ([127, 0, 0, 1], 7101).into(),
            peer_listen: ([127, 0, 0, 1], 7201).into(),
            advertise: None,
            peer_advertise: None,
            data_dir: "data".into(),
            formation,
            consensus: ConsensusConfig::new(1, "data"),
            client_limit: None,
        }
    }

    #[test]
    fn the_defaults_pass() {
        assert_eq!(config(Formation::Bootstrap).check(), Ok(()));
        let founders = BTreeMap::from([(1, "127.0.0.1:7201".to_owned()), (2, "localhost:7202".to_owned())]);
        assert_eq!(config(Formation::Founders(founders)).check(), Ok(()));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut config = config(Formation::Founders(BTreeMap::from([(2, "127.0.0.1:7202".to_owned())])));
        config.listen = ([0, 0, 0, 0], 7101).into();
        config.peer_advertise = Some("example.org:7201".to_owned());
        config.consensus.heartbeat_interval = std::time::Duration::from_millis(400);
        config.client_limit = Some(ClientLimit { by: LimitBy::Address, rate_per_second: 0, burst: u32::MAX });
        let text = config.check().unwrap_err().to_string();
        for part in [
            "--listen 0.0.0.0:7101",
            "--peer-advertise",
            "--nodes does not name node 1",
            "--election-timeout-min",
            "--client-rate is 0",
            "--client-burst is 4294967295",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_joining_node_has_no_id_and_a_founder_must_have_one() {
        let join = config(Formation::Join("http://127.0.0.1:7101".to_owned()));
        assert!(join.check().is_err());
        let bootstrap = NodeConfig { node_id: None, ..config(Formation::Bootstrap) };
        assert!(bootstrap.check().is_err());
    }
}
