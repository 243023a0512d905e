//! The config's Wi-Fi as wpa_supplicant wants it.

use crate::config::Wifi;

/// The whole of `wpa_supplicant.conf`.
pub(super) fn supplicant(wifi: &Wifi) -> String {
    // In hexadecimal, so that no name needs quoting.
    let name: String = wifi.name.bytes().map(|byte| format!("{byte:02x}")).collect();
    let key = match &wifi.password {
        // Everything between the outer quotes is taken as it is.
        Some(password) => {
            format!("\tpsk=\"{password}\"\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n")
        }
        None => "\tkey_mgmt=NONE\n".to_owned(),
    };
    // A hidden network is found only by asking for it.
    format!("country={}\nupdate_config=0\nnetwork={{\n\tssid={name}\n\tscan_ssid=1\n{key}}}\n", wifi.country)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_or_password_breaks_out() {
        let mut wifi = Wifi {
            name: "Höf\" }".to_owned(),
            password: Some("a\"b}c\\d #e".to_owned()),
            country: "DE".to_owned(),
        };
        let text = supplicant(&wifi);
        assert!(text.contains("\tssid=48c3b66622207d\n"), "{text}");
        assert!(text.contains("\tpsk=\"a\"b}c\\d #e\"\n"), "{text}");
        wifi.password = None;
        assert!(supplicant(&wifi).contains("key_mgmt=NONE"));
    }
}
