//! The files of the page. They are compiled into the program; nothing is read from disk or network.

/// The warning of a build without the libraries.
const MISSING: &str = "this build has no engraving and no sound: they were not bundled (scripts/demo-page does it, with \
                       Node; then build again); text and downloads work";

/// The page itself.
const PAGE: &[(&str, &[u8])] = &[
    ("index.html", include_bytes!("../page/index.html")),
    ("style.css", include_bytes!("../page/style.css")),
    ("icon.svg", include_bytes!("../page/icon.svg")),
    ("main.js", include_bytes!("../page/main.js")),
    ("api.js", include_bytes!("../page/api.js")),
    ("form.js", include_bytes!("../page/form.js")),
    ("link.js", include_bytes!("../page/link.js")),
    ("player.js", include_bytes!("../page/player.js")),
    ("sheet.js", include_bytes!("../page/sheet.js")),
];

include!(concat!(env!("OUT_DIR"), "/dist.rs"));

/// The content type and the contents of a file.
pub fn find(name: &str) -> Option<(&'static str, &'static [u8])> {
    let (name, contents) = PAGE.iter().chain(DIST).find(|(known, _)| *known == name)?;
    let kind = match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    Some((kind, contents))
}

/// Warnings about what this build lacks.
pub fn missing() -> &'static [&'static str] {
    if DIST.is_empty() { &[MISSING] } else { &[] }
}
