//! Which pools there are, and which of them requests go to.

use super::*;

#[test]
fn routes_that_only_overlap_are_all_reached_and_keep_their_order() {
    let settings = load(
        "
routes:
  - {pool: default, path_prefix: /x, strip_prefix: true}
  - {pool: default, path_prefix: /xy}
  - {pool: default, host: a.Example.com, header: X-A=1}
  - {pool: default, host: '*.example.com', header: X-A}
  - {pool: default, host: example.com}
  - {pool: default, header: X-A=2}
  - {pool: default, header: X-A}
  - {pool: default}
",
    )
    .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(settings.routes.len(), 8);
    assert!(settings.routes[0].path_prefix.as_deref() == Some("/x") && settings.routes[0].strip_prefix);
    assert!(settings.routes[2].host.as_deref() == Some("a.example.com"));
    assert!(settings.routes[2].header == Some(("x-a".to_owned(), Some("1".to_owned()))));
    assert!(settings.routes[3].header == Some(("x-a".to_owned(), None)));
}

#[test]
fn the_pool_of_the_top_level_is_there_if_it_is_written_or_no_other_is() {
    let names = |text: &str| -> Vec<String> {
        let settings = load(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        settings.pools.into_iter().map(|pool| pool.name).collect()
    };
    assert_eq!(names(""), ["default"]);
    assert_eq!(names("pools: {b: {}, a: {}}"), ["b", "a"]);
    assert_eq!(names("sandbox: {}\npools: {b: {}}"), ["default", "b"]);
    assert_eq!(names("pools: {default: {}, b: {}}"), ["default", "b"]);
    let settings = load("resources: {ttl: 1m}\npools: {b: {worker: {port: 9000}}}").unwrap();
    assert_eq!(settings.pools[1].resources.ttl, Duration::from_secs(300), "it has something from another pool");
    assert_eq!((settings.pools[0].worker.port, settings.pools[1].worker.port), (8000, 9000));
}
