output "address" {
  description = "Where the machine is reached, from the site's networks alone."
  value       = aws_instance.node.public_dns
}

output "shell" {
  description = "How to get a shell on it."
  value       = "aws ssm start-session --region ${var.region} --target ${aws_instance.node.id}"
}
