"""What a killmail is worth, and what kind it is, by zKillboard's rules. Pure: facts and prices are handed in.

Killmails come as ESI's bodies. Source of the rules: zKillboard's own code (cron/3.queueProcess.php, classes/Price.php,
Points.php, Build.php), as it was on 2026-08-21.
"""
