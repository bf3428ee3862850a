"""One student by several methods and seeds: plan, jobs, records, statistics. Knows no pictures, no pages."""
