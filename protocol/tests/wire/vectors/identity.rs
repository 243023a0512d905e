//! `identity.json`: what follows from a key or a secret.

use farm_protocol::id::{FarmId, InvitationId, PhoneId};
use farm_protocol::invitation::Secret;
use ring::digest::{SHA256, digest};
use serde_json::{Value as Json, json};

use super::fixtures::*;
use crate::notation::hex;

fn hash(context: &str, content: &[u8]) -> Vec<u8> {
    let whole = [context.as_bytes(), &[0], content].concat();
    digest(&SHA256, &whole).as_ref().to_vec()
}

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    for (name, seed, key) in [
        ("the farm", FARM_SEED, farm()),
        ("the phone", PHONE_SEED, phone()),
        ("a stranger", STRANGER_SEED, stranger()),
    ] {
        let public = key.public();
        let farm_id = hash("farm-tunnel.v1 farm id", public.as_bytes())[..20].to_vec();
        let phone_id = hash("farm-tunnel.v1 phone id", public.as_bytes())[..20].to_vec();
        assert_eq!(FarmId::of(&public).as_bytes()[..], farm_id);
        assert_eq!(PhoneId::of(&public).as_bytes()[..], phone_id);
        out.push(json!({
            "name": name,
            "type": "key",
            "seed": hex(&seed),
            "public_key": hex(public.as_bytes()),
            "farm_id": hex(&farm_id),
            "farm_id_text": FarmId::of(&public).to_string(),
            "phone_id": hex(&phone_id),
            "phone_id_text": PhoneId::of(&public).to_string(),
        }));
    }
    for (name, bytes) in [
        ("a link's secret", count::<16>(0).to_vec()),
        ("a code's secret", count::<10>(0xf0).to_vec()),
        ("a code's secret of zeros", vec![0; 10]),
    ] {
        let secret = Secret::from_bytes(&bytes).unwrap();
        let id = hash("farm-tunnel.v1 invitation id", &bytes)[..16].to_vec();
        assert_eq!(secret.id(), InvitationId::from_bytes(id[..].try_into().unwrap()));
        out.push(json!({
            "name": name,
            "type": "secret",
            "secret": hex(&bytes),
            "invitation_id": hex(&id),
            "code": secret.code(),
        }));
    }
    out.into()
}
