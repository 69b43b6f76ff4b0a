//! Who is asking: the client's address behind proxies that we name, and the bucket it is limited by.
//! Guarantees: a client can write whatever it likes into `X-Forwarded-For`; only hops that a trusted proxy
//! added are believed, from the right.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ::http::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The most forwarded hops looked at; a longer chain is not believed further.
const MAX_HOPS: usize = 16;

/// The proxies in front of us, as networks (`10.0.0.0/8`). Empty: nobody is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// The right-most address of the forwarding chain that is not a trusted proxy.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let values = headers.get_all("x-forwarded-for");
        let values: Vec<&str> = values.iter().map(|v| v.to_str().unwrap_or("")).collect();
        let hops = values.iter().rev().flat_map(|value| value.rsplit(',')).take(MAX_HOPS);
        for hop in hops {
            let Some(address) = parse_hop(hop) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }
}

/// What a client is limited by: an IPv4 address, or an IPv6 /64 (what one subscriber gets).
#[must_use]
pub fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

/// `203.0.113.7`, `203.0.113.7:443`, `2001:db8::1` or `[2001:db8::1]:443`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let plain = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    plain
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_hops_added_by_trusted_proxies_are_believed() {
        let proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (peer, forwarded, client) in [
            ("203.0.113.7", &["1.2.3.4"][..], "203.0.113.7"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["1.2.3.4", "203.0.113.7, 10.9.9.9"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7:5555"], "203.0.113.7"),
            ("fd00::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["1.2.3.4, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ] {
            assert_eq!(proxies.client(ip(peer), &headers(forwarded)), ip(client), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_one_client() {
        assert_eq!(limit_key(ip("2001:db8:1:2:3:4:5:6")), limit_key(ip("2001:db8:1:2::ffff")));
        assert_ne!(limit_key(ip("2001:db8:1:2::1")), limit_key(ip("2001:db8:1:3::1")));
        assert_eq!(limit_key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    proptest! {
        #[test]
        fn nothing_a_client_forwards_changes_who_it_is(lies in proptest::collection::vec("[ -~]{0,40}", 0..5)) {
            let real = ip("203.0.113.7");
            let proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]);
            // Directly connected, and through a proxy that appends the address it saw.
            let direct: Vec<&str> = lies.iter().map(String::as_str).collect();
            prop_assert_eq!(proxies.client(real, &headers(&direct)), real);
            let appended = format!("{}, 203.0.113.7", lies.join(","));
            prop_assert_eq!(proxies.client(ip("10.0.0.1"), &headers(&[appended.as_str()])), real);
        }
    }
}
