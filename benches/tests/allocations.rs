//! What each of our layers allocates, counted: nothing on the happy path, one boxed error for a refusal.

use seawall_benches::{BoxError, Runtimes, cases};

fn allocations(of: impl Fn(&str) -> bool) -> Result<Vec<(String, f64)>, BoxError> {
    let runtimes = Runtimes::new()?;
    let ours = cases().into_iter().filter(|case| case.group == "seawall" && of(&case.case));
    ours.map(|case| Ok((case.case.clone(), case.allocations(&runtimes)?))).collect()
}

fn refuses(case: &str) -> bool {
    case.contains("open") || case.contains("full")
}

#[test]
fn the_happy_path_of_every_layer_allocates_nothing() {
    let counted = allocations(|case| !refuses(case)).unwrap();
    assert_eq!(counted.len(), 14, "seven cases, two sizes of the request: {counted:?}");
    for (case, allocations) in counted {
        assert_eq!(allocations, 0.0, "{case}");
    }
}

#[test]
fn a_refusal_allocates_at_most_its_boxed_error() {
    let counted = allocations(refuses).unwrap();
    assert_eq!(counted.len(), 6, "{counted:?}");
    for (case, allocations) in counted {
        assert!(allocations <= 1.0, "{case}: {allocations}");
    }
}

#[test]
fn the_counter_counts() {
    // Were it not linked in, every figure would be zero.
    let runtimes = Runtimes::new().unwrap();
    let boxed = cases().into_iter().find(|case| case.group == "tower-resilience" && case.case == "timeout").unwrap();
    assert!(boxed.allocations(&runtimes).unwrap() >= 1.0, "it boxes its future");
}
