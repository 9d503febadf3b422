//! The curves of the overloaded server say what they are shown for, and the program that draws them behaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use seawall_benches::overload::{AT_LEAST, LIMITS, Plan, Point, REFUSING, Verdict};

fn points(plan: &Plan) -> Vec<Point> {
    plan.run(&AtomicBool::new(false), |_| ()).unwrap().unwrap()
}

fn at<'a>(points: &'a [Point], limit: &str, load: f64) -> &'a Point {
    points.iter().find(|point| point.limit == limit && point.load == load).unwrap()
}

#[test]
fn limits_keep_the_goodput_that_no_limit_loses() {
    let plan = Plan::quick();
    let points = points(&plan);
    assert_eq!(points.len(), plan.points());
    let peak = points.iter().map(|point| point.goodput_per_s).fold(0.0, f64::max);

    let (easy, hard) = (at(&points, "no limit", 0.5), at(&points, "no limit", 3.0));
    assert!(easy.goodput_per_s > 0.99 * easy.offered_per_s, "the server copes with half of its capacity: {easy}");
    assert!(hard.goodput_per_s < 0.1 * peak, "it collapses: {hard}");
    assert!(hard.p99_at_least && hard.p99_s > Some(5.0), "its queue grows without end: {hard}");

    let refusing = at(&points, REFUSING, 3.0);
    assert!(refusing.goodput_per_s >= AT_LEAST * peak, "{refusing}");
    assert!(refusing.p99_s < Some(1.0), "what it lets in is answered while somebody waits: {refusing}");
    let verdict = Verdict::of(&points).unwrap();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.goodput_per_s, verdict.peak_per_s), (refusing.goodput_per_s, peak));

    let waiting = at(&points, "waiting bulkhead", 3.0);
    assert!(waiting.goodput_per_s >= AT_LEAST * peak, "{waiting}");
    assert!(waiting.p99_s > refusing.p99_s, "waiting buys nothing there: {waiting}");

    let rate = at(&points, "rate limit", 3.0);
    let let_in = rate.sent - rate.refused;
    assert!((1590..=1608).contains(&let_in), "80/s for 20 s, and a burst of 8: {rate}");
    assert!(rate.goodput_per_s > 0.99 * 80.0, "what it lets in, the server can do: {rate}");
}

#[test]
fn every_request_is_in_time_late_or_refused_for_a_reason() {
    for point in points(&Plan { counted: Duration::from_secs(5), ..Plan::quick() }) {
        let Point { sent, in_time, late, unanswered, refused, reasons, .. } = &point;
        assert_eq!(in_time + late + refused, *sent, "{point}");
        assert!(unanswered <= late, "{point}");
        let counts = reasons.split_whitespace().map(|reason| reason.rsplit_once(':').unwrap().1);
        assert_eq!(counts.map(|count| count.parse::<usize>().unwrap()).sum::<usize>(), *refused, "{point}");
        if point.limit == "no limit" {
            assert_eq!(*refused, 0, "{point}");
        } else if point.load > 1.0 {
            assert!(*refused > 0, "{point}");
        }
    }
}

#[test]
fn a_seed_gives_one_set_of_points() {
    let plan = |seed| Plan { counted: Duration::from_secs(5), loads: vec![1.5], seed };
    assert_eq!(points(&plan(7)), points(&plan(7)));
    assert_ne!(points(&plan(7)), points(&plan(8)));
}

#[test]
fn a_goodput_below_the_bar_does_not_hold() {
    let mut points = points(&Plan { counted: Duration::from_secs(5), loads: vec![1.0, 3.0], seed: 1 });
    for point in points.iter_mut().filter(|point| point.limit == REFUSING && point.load == 3.0) {
        point.goodput_per_s *= 0.5;
    }
    let verdict = Verdict::of(&points).unwrap();
    assert!(!verdict.holds() && verdict.to_string().ends_with("at least 80 %: NOT MET"), "{verdict}");
}

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_overload"));
    program.stdin(Stdio::null());
    program
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_program_writes_a_picture_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("not/there/yet");
    let output = run(&["--quick", "--out", out.to_str().unwrap()]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(stderr.lines().count(), Plan::quick().points(), "a line of progress for each: {stderr}");
    assert!(stdout.contains("at least 80 %: met"), "{stdout}");
    assert_eq!(files(&out), ["overload.csv", "overload.svg"]);

    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_path(out.join("overload.csv")).unwrap().into_records().collect::<Result<_, _>>().unwrap();
    let curves: Vec<(&str, f64)> = rows.iter().map(|row| (&row[0], row[1].parse().unwrap())).collect();
    let loads = Plan::quick().loads;
    let expected: Vec<_> = LIMITS.iter().flat_map(|limit| loads.iter().map(|load| (limit.name, *load))).collect();
    assert_eq!(curves, expected);

    let svg = fs::read_to_string(out.join("overload.svg")).unwrap();
    let svg = roxmltree::Document::parse(&svg).unwrap();
    assert_eq!(svg.root_element().tag_name().name(), "svg");
    let texts: Vec<_> = svg
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    for limit in &LIMITS {
        assert!(texts.iter().any(|text| text.starts_with(limit.name)), "{} is in the legend: {texts:?}", limit.name);
    }
    let lines = svg.descendants().filter(|node| node.has_tag_name("polyline"));
    let long = lines.filter(|line| line.attribute("points").unwrap().split_whitespace().count() == loads.len());
    assert_eq!(long.count(), 3 * LIMITS.len(), "a line for each limit in each of three panels");
}

#[test]
fn wrong_arguments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["--seconds-per-point", "0"], "--seconds-per-point"),
        (&["--seed", "one"], "--seed"),
        (&["--slow"], "--slow"),
        (&["--out", file.to_str().unwrap()], "--out"),
    ];
    for (args, named) in cases {
        let output = run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_it_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let mut child =
        program().args(["--seconds-per-point", "600", "--out", out]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("[ 1/44]"), "{line}");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();

    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.ends_with("interrupted: nothing was written\n"), "{rest}");
    assert!(rest.lines().count() < 40, "it stopped before its end: {rest}");
    assert_eq!(files(folder.path()), [""; 0]);
}
