//! The guide for a new pattern points to files: they exist.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::Path;

#[test]
fn every_link_of_the_guide_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("ADDING_A_PATTERN.md")).unwrap();
    let links: Vec<_> =
        guide.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect();
    assert!(links.len() > 15, "the guide names its files by links: {links:?}");
    let dead: Vec<_> = links.iter().filter(|link| !root.join(link).exists()).collect();
    assert!(dead.is_empty(), "{dead:?}");
}
