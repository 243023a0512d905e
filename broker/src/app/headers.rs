//! Headers of the app and of view hosts: who may run what, and what may be kept.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Files under here carry a hash in their names and never change.
const FOR_EVER: &str = "/assets/";

/// Whether a browser asks for a page to show, as far as it says.
pub(super) fn is_navigation(request: &HeaderMap) -> bool {
    request.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
}

/// For the app's own host; `views` is where farm pages are shown.
pub(super) fn for_app(fields: &mut HeaderMap, path: &str, views: &str) {
    let kept = if path.starts_with(FOR_EVER) { "public, max-age=31536000, immutable" } else { "no-cache" };
    set(fields, header::CACHE_CONTROL, kept);
    // The app talks to the brokers of its farms, wherever they are; nothing
    // else runs in it, and nobody frames it.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
         connect-src 'self' wss: ws:; frame-src {views}; worker-src 'self'; manifest-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    set(fields, header::CONTENT_SECURITY_POLICY, &policy);
    set(fields, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(fields, header::REFERRER_POLICY, "no-referrer");
    set(
        fields,
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(), geolocation=()",
    );
    set(fields, HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(fields, HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
}

/// For a view host; only the app may frame what is there.
pub(super) fn for_view(fields: &mut HeaderMap, name: &str, apps: &[String]) {
    set(fields, header::CACHE_CONTROL, "no-store");
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors {}",
        apps.join(" ")
    );
    // The worker fetches for the farm's pages: their own policies hold there.
    if name != "sw.js" {
        set(fields, header::CONTENT_SECURITY_POLICY, &policy);
    }
    set(fields, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(fields, header::REFERRER_POLICY, "no-referrer");
    set(fields, HeaderName::from_static("service-worker-allowed"), "/");
    set(fields, HeaderName::from_static("origin-agent-cluster"), "?1");
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    // Ours are constants and host names that were parsed before.
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}
