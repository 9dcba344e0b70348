module hyperflow.dev/e2e/images/static

go 1.25.0
