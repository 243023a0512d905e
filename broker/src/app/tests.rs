use http_body_util::BodyExt;
use hyper::Request;

use super::*;

fn app(views: Views) -> (App, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("index.html", "<!doctype html>app"),
        ("assets/app-1.js", "plain"),
        ("assets/app-1.js.gz", "packed"),
        ("view/bridge.html", "bridge for %APPS%"),
        ("view/boot.html", "boot"),
        ("view/sw.js", "worker"),
    ] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    (App::load(directory.path(), views).unwrap(), directory)
}

fn ask(app: &App, host: &str, path: &str, fields: &[(&str, &str)]) -> Page {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    app.respond(&request.body(()).unwrap().into_parts().0)
}

fn body(page: Page) -> String {
    let collected = smol::block_on(page.into_body().collect()).unwrap();
    String::from_utf8(collected.to_bytes().to_vec()).unwrap()
}

fn field(page: &Page, name: &str) -> String {
    page.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn the_app_is_served_with_a_strict_policy() {
    let (app, _directory) = app(Views::Loopback);
    let page = ask(&app, "localhost:8443", "/", &[]);
    assert_eq!(page.status(), StatusCode::OK);
    let policy = field(&page, "content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
    assert!(policy.contains("frame-src http://*.localhost:8443;"), "{policy}");
    assert_eq!(field(&page, "cache-control"), "no-cache");
    assert_eq!(body(page), "<!doctype html>app");
    assert_eq!(body(ask(&app, "localhost:8443", "/app.json", &[])), r#"{"views":"http://*.localhost:8443"}"#);
    for path in
        ["/nothing", "/assets/../index.html", "/view/bridge.html", "/assets/app-1.js.gz", "//index.html"]
    {
        assert_eq!(ask(&app, "localhost:8443", path, &[]).status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn what_never_changes_is_kept_and_packed() {
    let (app, _directory) = app(Views::Loopback);
    let page = ask(&app, "b.example.org", "/assets/app-1.js", &[("accept-encoding", "br, gzip;q=0.8")]);
    assert_eq!(field(&page, "content-encoding"), "gzip");
    assert!(field(&page, "cache-control").contains("immutable"));
    let tag = field(&page, "etag");
    assert_eq!(body(page), "packed");
    assert_eq!(body(ask(&app, "b.example.org", "/assets/app-1.js", &[])), "plain");
    let again = ask(&app, "b.example.org", "/assets/app-1.js", &[("if-none-match", &tag)]);
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
}

#[test]
fn a_view_host_serves_its_own_files_and_nothing_of_the_app() {
    let (app, _directory) = app(Views::Loopback);
    let host = "greenhouse--farm.localhost:8443";
    let bridge = ask(&app, host, "/__view/bridge", &[]);
    assert!(field(&bridge, "content-security-policy").contains("frame-ancestors http://localhost:8443"));
    assert!(body(bridge).starts_with("bridge for http://localhost:8443 "));
    assert_eq!(body(ask(&app, host, "/any/page", &[("sec-fetch-mode", "navigate")])), "boot");
    assert_eq!(body(ask(&app, host, "/__view/sw.js", &[("service-worker", "script")])), "worker");
    for (path, fields) in [
        ("/api", &[("sec-fetch-mode", "cors")][..]),
        ("/worker.js", &[("service-worker", "script")]),
        ("/__view/bridge", &[("service-worker", "script")]),
        ("/__view/", &[]),
        ("/assets/app-1.js", &[("sec-fetch-mode", "no-cors")]),
        ("/app.json", &[("sec-fetch-mode", "cors")]),
    ] {
        assert_eq!(ask(&app, host, path, fields).status(), StatusCode::NOT_FOUND, "{path} {fields:?}");
    }
}

#[test]
fn views_on_a_domain_of_their_own_are_framed_by_the_app_alone() {
    let views: Views = "https://*.views.example.net".parse().unwrap();
    let (app, _directory) = app(views.framed_by("https://broker.example.org".to_owned()));
    let page = ask(&app, "broker.example.org", "/", &[]);
    assert!(field(&page, "content-security-policy").contains("frame-src https://*.views.example.net;"));
    let page = ask(&app, "a--b.views.example.net", "/__view/bridge", &[]);
    assert!(field(&page, "content-security-policy").contains("frame-ancestors https://broker.example.org"));
    for bad in ["views.example.net", "https://views.example.net", "ftp://*.x", "https://*.", "https://*.a b"]
    {
        assert!(bad.parse::<Views>().is_err(), "{bad}");
    }
}

#[test]
fn a_directory_without_an_app_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = App::load(directory.path(), Views::Loopback).err().unwrap().to_string();
    assert!(error.contains("index.html") && error.contains("make app"), "{error}");
}

#[test]
fn a_view_host_has_no_devices() {
    let (app, _directory) = app(Views::Loopback);
    let has = |host: &str| {
        let request = Request::get("/v1/connect").header("host", host).body(()).unwrap();
        app.has_devices(&request.into_parts().0)
    };
    assert!(has("localhost:8443") && has("broker.example.org") && has("127.0.0.1:8443"));
    assert!(!has("greenhouse--north.localhost:8443"));
}
