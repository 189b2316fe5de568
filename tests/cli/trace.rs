//! `balancer trace` where there is nothing to trace, or the words are wrong. What it prints is in
//! `tests/e2e/trace.rs`.

use harness::{instance::balancer_binary, root_or_skip};

use crate::{
    run::{Ended, balancer},
    world::{ATTACH, World, topology},
};

#[test]
fn what_cannot_be_traced_is_refused_with_what_to_do() {
    let Some(root) = root_or_skip("cli") else { return };
    let topology = topology(root);
    let world = World::new(root, &topology);
    world.run(&["trace"]).exits(3).says(&["nothing is loaded", "balancer load -f PATH"]);
    world.load(&ATTACH).exits(0);
    let before = world.snapshot();
    world
        .run(&["trace", "--service", "reddis"])
        .exits(2)
        .says(&["no VIP stands for service `reddis`", "did you mean redis?"]);
    world
        .run(&["trace", "--from", "web"])
        .exits(2)
        .says(&["no Dataplane with an address is named `web`", "did you mean web-1?"]);
    world.is_still(&before);
    // Its maps, but not its texts.
    let elsewhere = world.files.path().join("state");
    let output = topology
        .node
        .command(balancer_binary())
        .args(["trace", "--service", "redis", "--bpffs"])
        .arg(world.instance.bpffs())
        .arg("--state")
        .arg(&elsewhere)
        .output()
        .expect("it can be started");
    let ended = Ended::new("trace with another state".to_owned(), output);
    ended.exits(3).says(&["no record of what is live", "--state DIR"]);
    let asked = world.json(&["maps", "dump", "TRACE"]);
    assert_eq!(asked, serde_json::json!([]), "nothing was switched on");
}

/// What is wrong with the words needs neither a load nor a privilege to be said.
#[test]
fn wrong_words_say_what_to_write() {
    balancer(&["trace", "--reason", "blackhol"]).exits(2).says(&["did you mean `blackhole`"]);
    balancer(&["trace", "--reason", "established"]).exits(2).says(&["balancer show reasons"]);
    balancer(&["trace", "--for", "5"]).exits(2).says(&["`5s` for seconds"]);
    balancer(&["trace", "--sample", "0"]).exits(2).says(&["--sample"]);
    balancer(&["trace", "--new", "--drops"]).exits(2).says(&["--drops"]);
    balancer(&["trace", "--drops", "--reason", "denied"]).exits(2).says(&["--reason"]);
    balancer(&["trace", "-o", "yaml"]).exits(2).says(&["balancer trace -o json"]);
    balancer(&["trace", "-o", "hosts"]).exits(2).says(&["balancer show vips -o hosts"]);
}
