//! What a worker learns of names.

use herd_pool::Worker as _;

use crate::{
    fixture::{ask, patiently, start},
    world::{PORT, PUBLIC},
};

pub(crate) async fn names_are_answered_by_the_hosts_name_servers() {
    let worker = start(&[]).await;
    assert_eq!(ask(&worker, &format!("tcp public.example:{PORT}")).await, format!("reached {PUBLIC}"));
    let answer = ask(&worker, &format!("tcp nobody.example:{PORT}")).await;
    assert!(answer.starts_with("unknown"), "{answer}");
    patiently(worker.close()).await;
}

pub(crate) async fn names_are_answered_over_streams() {
    let worker = start(&[]).await;
    assert_eq!(ask(&worker, "stream-name 198.51.100.1:53 public.example").await, format!("answered {PUBLIC}"));
    patiently(worker.close()).await;
}

pub(crate) async fn a_name_opens_no_address() {
    let worker = start(&[]).await;
    let answer = ask(&worker, &format!("tcp private.example:{PORT}")).await;
    assert!(answer.starts_with("refused"), "the name is known and its address closed: {answer}");
    patiently(worker.close()).await;
}
