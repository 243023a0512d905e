//! What a running broker can take over of a changed config, and what not.

use super::{Choice, Settings};
use crate::core::Limits;
use crate::core::relay::RelayLimits;

impl Settings {
    /// The limits of the broker's own relay, if it has one.
    pub fn relay_limits(&self) -> Option<RelayLimits> {
        match self.relay.clone().unwrap_or_default().choice {
            Choice::Embedded { table, .. } => Some(table.options().limits),
            Choice::Off | Choice::External { .. } => None,
        }
    }

    /// Keys of the config that differ from what the broker was started with,
    /// and only take effect when it is started again.
    pub fn needs_restart(&self, started: &Self) -> Vec<&'static str> {
        let relay = |settings: &Self| settings.relay.clone().unwrap_or_default().without_limits();
        let differs = [
            ("listen", self.listen() != started.listen()),
            ("state", self.state() != started.state()),
            ("public_url", self.public_url != started.public_url),
            ("trusted_proxy", self.trusted_proxy != started.trusted_proxy),
            ("stun", self.stun != started.stun),
            ("app_origins", self.app_origins != started.app_origins),
            ("app", self.app != started.app),
            ("views", self.views != started.views),
            ("metrics", self.metrics != started.metrics),
            ("tls", self.tls != started.tls),
            ("relay", relay(self) != relay(started)),
            ("cluster", self.cluster != started.cluster),
            ("log_format", self.log_format != started.log_format),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// The limits, with as many sockets as there may be.
    pub fn limits_within(&self, room: impl FnOnce(usize) -> usize) -> Limits {
        let limits = self.limits();
        Limits { sockets: limits.sockets.min(room(limits.sockets)), ..limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn limits_and_alerts_need_no_restart_and_the_rest_is_named() {
        let started = settings("listen = \"127.0.0.1:1\"");
        let changed = settings(
            r#"
            listen = "127.0.0.1:1"
            [limits]
            connections = 7
            [relay.limits]
            allocations = 9
            [alerts]
            url = "https://hooks.example/x"
            "#,
        );
        assert_eq!(changed.needs_restart(&started), Vec::<&str>::new());
        assert_eq!(changed.relay_limits().unwrap().allocations, 9);
        let more = settings("metrics = \"127.0.0.1:2\"\n[relay]\nports = \"50000-50009\"");
        assert_eq!(more.needs_restart(&started), ["listen", "metrics", "relay"]);
        assert_eq!(settings("[relay]\nenabled = false").relay_limits(), None);
    }

    #[test]
    fn sockets_are_as_many_as_there_is_room_for() {
        let settings = settings("[limits]\nconnections = 100");
        assert_eq!(settings.limits_within(|_| 50).sockets, 50);
        assert_eq!(settings.limits_within(|wanted| wanted).connections, 100);
    }
}
