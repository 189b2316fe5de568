//! Expected and seen shares, side by side.

use anyhow::{Result, ensure};

/// A right implementation is further off than this many standard deviations once in two
/// million tables.
const DEVIATIONS_MAX: f64 = 5.0;

/// One backend of one service.
pub(crate) struct Row {
    pub(crate) service: String,
    pub(crate) vip: String,
    pub(crate) policy: String,
    pub(crate) version: String,
    pub(crate) weight: u64,
    /// Connections to the service.
    pub(crate) total: u32,
    /// Share that the policy gives.
    pub(crate) expected: f64,
    /// Connections that arrived.
    pub(crate) seen: u32,
}

/// Prints the rows; fails if the shares are not those of the policy.
pub(crate) fn print(rows: &[Row]) -> Result<()> {
    println!(
        "\n  {:<8} {:<20} {:<14} {:<8} {:>6} {:>9} {:>6} {:>8} {:>8}",
        "SERVICE", "VIP", "POLICY", "VERSION", "WEIGHT", "EXPECTED", "SEEN", "SHARE", "OFF BY"
    );
    for row in rows {
        let total = f64::from(row.total);
        let (expected, seen) = (row.expected * total, f64::from(row.seen));
        println!(
            "  {:<8} {:<20} {:<14} {:<8} {:>6} {:>9.0} {:>6} {:>6.1} % {:>+6.1} %",
            row.service,
            row.vip,
            row.policy,
            row.version,
            row.weight,
            expected,
            row.seen,
            100.0 * seen / total,
            100.0 * (seen - expected) / total
        );
        // Client ports are any, so each connection is a throw of a weighted die.
        let deviation = (expected * (1.0 - row.expected)).sqrt();
        ensure!(
            (seen - expected).abs() <= DEVIATIONS_MAX * deviation,
            "{} {} got {seen} of {total} connections, {expected} were expected",
            row.service,
            row.version
        );
    }
    let arrived: u32 = rows.iter().map(|row| row.seen).sum();
    let mut services: Vec<_> = rows.iter().map(|row| (&row.service, row.total)).collect();
    services.dedup();
    let opened: u32 = services.iter().map(|(_, total)| total).sum();
    ensure!(arrived == opened, "{opened} connections were opened, {arrived} arrived at a backend");
    Ok(())
}
